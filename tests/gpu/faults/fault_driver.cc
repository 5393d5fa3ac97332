/*
 * A driver that stands before another one: it exports what our loader looks for (the one list of
 * cuda_driver.h), fails the calls that TS_FAULT names (driver_faults.h) and hands all others on. A call that
 * fails has not happened, unless it gives something back: who is told so does not ask again. So what a lost
 * device does is tried over any driver, a real one too:
 *
 *     TS_CUDA_DRIVER=build/release/fault-driver/libts-fault-driver.so TS_FAULT=cuGraphLaunch:9:700:sticky
 *
 * It has a name of its own, which our loader alone is told: cuBLASLt loads libcuda.so.1, and must find the
 * real one with all its functions. TS_FAULT_DRIVER: what calls are handed on to instead of libcuda.so.1.
 *
 * Each exported function is an indirect one (ifunc): dlsym gives what its resolver chooses, which a template
 * makes of the function's type, so that no parameter is written down a second time.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>
#include <type_traits>

#include "gpu/cuda/device/cuda_driver.h"
#include "tests/gpu/faults/driver_faults.h"

namespace
{

cuda_driver real;
void *library;

/* What a result is called may be asked in any case. */
template <auto member, typename... Arguments> struct forward {
    static const char *name;
    static bool gives_back;
    static CUresult call(Arguments... arguments)
    {
        if constexpr (!std::is_same_v<decltype(member), decltype(&cuda_driver::error_name)>) {
            if (CUresult told = driver_faults_next(name)) {
                if (gives_back)
                    (void)(real.*member)(arguments...);
                return told;
            }
        }
        return (real.*member)(arguments...);
    }
};

template <auto member, typename... Arguments> const char *forward<member, Arguments...>::name;
template <auto member, typename... Arguments> bool forward<member, Arguments...>::gives_back;

bool named_as_giving_back(const char *name)
{
    for (const char *word : {"Destroy", "Free", "Close", "Unload", "Release"}) {
        if (strstr(name, word))
            return true;
    }
    return false;
}

template <auto member, typename... Arguments>
auto before(const char *name, CUresult (*function)(Arguments...))
{
    forward<member, Arguments...>::name = name;
    forward<member, Arguments...>::gives_back = named_as_giving_back(name);
    return function ? &forward<member, Arguments...>::call : nullptr;
}

} // namespace

__attribute__((constructor)) static void load()
{
    const char *path = getenv("TS_FAULT_DRIVER");
    library = dlopen(path && *path ? path : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        fprintf(stderr, "fault driver: %s\n", dlerror());
    driver_faults_from_environment();
}

/* As without us: a function that the driver does not have is not found here either. */
#define HIDDEN __attribute__((visibility("hidden")))
#define EXPORT(function, member)                                                                             \
    HIDDEN decltype(real.member) resolve_##function()                                                        \
    {                                                                                                        \
        *(void **)&real.member = library ? dlsym(library, #function) : nullptr;                              \
        return before<&cuda_driver::member>(#function, real.member);                                         \
    }                                                                                                        \
    __typeof__(*real.member) function __attribute__((ifunc("resolve_" #function)));

extern "C" {
CUDA_DRIVER_FUNCTIONS(EXPORT)

/* And what tells that the driver is that of the tests. */
HIDDEN void (*resolve_emulated())()
{
    return library ? (void (*)())dlsym(library, "ts_cuda_is_emulated") : nullptr;
}
void ts_cuda_is_emulated() __attribute__((ifunc("resolve_emulated")));
}
