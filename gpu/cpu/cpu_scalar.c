#define CPU_LEVEL_NAME  "scalar"
#define CPU_LEVEL_TABLE cpu_scalar
#include "gpu/cpu/cpu_kernels.h"
