"""The stages of a build, one file each: a function that runs the stage on the bundle that a runner has open."""
