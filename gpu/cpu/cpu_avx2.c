#define CPU_LEVEL_NAME  "avx2"
#define CPU_LEVEL_TABLE cpu_avx2
#include "gpu/cpu/cpu_kernels.h"
