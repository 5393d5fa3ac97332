/* A cluster file of unknown origin: refused in one line, or a cluster whose links and cells add up. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/inputs/ts_inputs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void); /* NOLINT: the sanitizer's name */

/* libconfig 1.5 loses the text of a string that no closing quote follows. */
const char *__lsan_default_suppressions(void) /* NOLINT */
{
    return "leak:libconfig";
}

static void check(const struct ts_cluster *cluster)
{
    uint32_t cells = 0, alive = 0;
    if (cluster->gpu_count == 0 || cluster->gpu_count > TS_CLUSTER_GPUS_MAX)
        abort();
    for (uint32_t i = 0; i < cluster->cell_count; i++)
        cells += cluster->cells[i].count;
    for (uint32_t i = 0; i < cluster->gpu_count; i++)
        alive += cluster->gpus[i].alive;
    if (cells != alive)
        abort();
    for (uint32_t i = 0; i < cluster->node_count; i++) {
        for (uint32_t j = 0; j < cluster->node_count; j++) {
            if (i != j && ts_cluster_link(cluster, i, j)->bytes_per_s > cluster->nodes[i].nic_out_bytes_per_s)
                abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ts_catalogue *catalogue;
    struct ts_cluster *cluster = NULL;
    struct ts_error err = {0};
    char path[64];
    int fd = memfd_create("cluster", MFD_CLOEXEC);
    if (!catalogue && ts_catalogue_load(TS_CONF_DIR, "paper", &catalogue, &err) != TS_OK)
        abort();
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (ts_inputs_cluster(catalogue, TS_CONF_DIR, path, &cluster, &err) == TS_OK)
        check(cluster);
    else if (!*err.text || strchr(err.text, '\n'))
        abort();
    ts_cluster_destroy(&cluster);
    close(fd);
    return 0;
}
