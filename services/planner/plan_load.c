#include <dlfcn.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/plan_algorithm.h"

#define SYMBOL "ts_plan_algorithm"

static enum ts_status check(const struct plan_algorithm *algorithm, const char *path, struct ts_error *err)
{
    if (algorithm->version != PLAN_ALGORITHM_VERSION)
        return ts_error_set(
            err, TS_EUNSUPPORTED,
            "\"%s\" was built for version %u of plan_algorithm.h, this program has version %d; "
            "build it again",
            path, algorithm->version, PLAN_ALGORITHM_VERSION);
    if (!algorithm->name || !algorithm->name[0] || !algorithm->summary || !algorithm->open ||
        !algorithm->step || !algorithm->best || !algorithm->describe || !algorithm->close)
        return ts_error_set(err, TS_EINVAL, "\"%s\": a field of " SYMBOL " is empty; all are needed", path);
    if (plan_algorithm_find(algorithm->name))
        return ts_error_set(err, TS_EINVAL,
                            "\"%s\": an algorithm named \"%s\" is built in; take another name", path,
                            algorithm->name);
    return TS_OK;
}

const struct plan_algorithm *plan_algorithm_load(const char *path, struct ts_error *err)
{
    /* A bare name would be looked for among the system's libraries. */
    char *file = strchr(path, '/') ? ts_xstrdup(path) : ts_xasprintf("./%s", path);
    void *object = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    ts_free(file);
    if (!object) {
        (void)ts_error_set(err, TS_ENOTFOUND, "cannot load \"%s\": %s", path, dlerror());
        return NULL;
    }
    const struct plan_algorithm *algorithm = dlsym(object, SYMBOL);
    enum ts_status status = algorithm ? check(algorithm, path, err)
                                      : ts_error_set(err, TS_EINVAL,
                                                     "\"%s\" exports no " SYMBOL "; declare it as "
                                                     "const struct plan_algorithm " SYMBOL,
                                                     path);
    if (status == TS_OK)
        return algorithm;
    (void)dlclose(object);
    return NULL;
}
