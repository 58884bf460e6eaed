#include "check.h"

int main(int argc, char** argv) { return edgeformer::check::Main(argc, argv); }
