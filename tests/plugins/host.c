/* A host that opens a plugin library, and does no more: what TensorRT's registry holds afterwards.
 *
 *     host LIBRARY TENSORRT SLOT
 *
 * Opens LIBRARY, and prints how many creators named BiLevelRoutingAttention the registry of TENSORRT (a SONAME) has
 * after each step: opened, opened again, closed once, closed, opened. SLOT is where getAllCreators stands in the
 * registry's table. The process ends with LIBRARY open.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Functions of these names are in every TensorRT and in many plugin libraries. The dynamic linker finds those of the
 * program first (-rdynamic); they are not the ones that are meant. */
void* getPluginRegistry(void) { abort(); }
void* getCreators(int32_t* count) {
    (void)count;
    abort();
}

/* In an IPluginCreatorV3One: getAPILanguage, getInterfaceInfo, the destructor twice, createPlugin, getFieldNames. */
enum { GET_INTERFACE_INFO = 1, GET_PLUGIN_NAME = 6 };

typedef struct {
    char const* kind;
    int32_t major, minor;
} InterfaceInfo;

typedef void (*Function)(void);

static Function function_of(void* object, int slot) { return (*(Function**)object)[slot]; }

static int creators(void* tensorrt, int slot) {
    void* symbol = dlsym(tensorrt, "getPluginRegistry");
    void* (*get_plugin_registry)(void);
    memcpy(&get_plugin_registry, &symbol, sizeof symbol);
    void* registry = get_plugin_registry();
    int32_t count = 0;
    void** all = ((void** (*)(void*, int32_t*))function_of(registry, slot))(registry, &count);
    int found = 0;
    for (int32_t i = 0; i < count; ++i) {
        InterfaceInfo info = ((InterfaceInfo (*)(void*))function_of(all[i], GET_INTERFACE_INFO))(all[i]);
        if (strcmp(info.kind, "PLUGIN CREATOR_V3ONE") != 0) continue;
        char const* name = ((char const* (*)(void*))function_of(all[i], GET_PLUGIN_NAME))(all[i]);
        found += strcmp(name, "BiLevelRoutingAttention") == 0;
    }
    return found;
}

static void* open_library(char const* path) {
    void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return handle;
}

int main(int argc, char** argv) {
    if (argc != 4) return 2;
    int slot = atoi(argv[3]);
    void* first = open_library(argv[1]);
    void* tensorrt = open_library(argv[2]);
    int opened = creators(tensorrt, slot);
    void* second = open_library(argv[1]);
    int twice = creators(tensorrt, slot);
    dlclose(first);
    int once = creators(tensorrt, slot);
    dlclose(second);
    int closed = creators(tensorrt, slot);
    void* left = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
    open_library(argv[1]);
    printf("%d %d %d %d %d, %s\n", opened, twice, once, closed, creators(tensorrt, slot), left ? "stayed" : "unloaded");
    return 0;
}
