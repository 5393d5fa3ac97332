#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl.h"

static bool holds_devices(const char *folder)
{
    struct stat entry;
    char *devices = ts_xasprintf("%s/devices", folder);
    bool holds = stat(devices, &entry) == 0 && S_ISDIR(entry.st_mode);
    ts_free(devices);
    return holds;
}

/* In a build tree the program is in BUILD/bin, some folders below the one that holds conf. */
char *tsctl_conf_dir(void)
{
    char program[PATH_MAX];
    ssize_t bytes = holds_devices("conf") ? 0 : readlink("/proc/self/exe", program, sizeof program - 1);
    program[bytes > 0 ? bytes : 0] = '\0';
    for (char *slash; (slash = strrchr(program, '/'));) {
        *slash = '\0';
        char *folder = ts_xasprintf("%s/conf", program);
        if (holds_devices(folder))
            return folder;
        ts_free(folder);
    }
    return ts_xstrdup("conf");
}
