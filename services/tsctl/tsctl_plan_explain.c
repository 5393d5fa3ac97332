#include <math.h>
#include <string.h>

#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_plan_make.h"
#include "services/tsctl/tsctl_plan_why.h"

/* A plan from a file, over its own inputs loaded again. */
static int open_plan(const struct tsctl_plan_flags *f, const char *path, struct tsctl_plan_world *world,
                     struct tsctl_plan_doc **doc, struct ts_plan **plan, struct ts_error *err)
{
    uint32_t lost = 0;
    if (tsctl_plan_read(path, doc, err) != TS_OK)
        return 1;
    if (ts_conf_given(f->conf, "conf_dir"))
        (*doc)->inputs.conf_dir = f->inputs.conf_dir;
    enum ts_status status = tsctl_plan_world_load(&(*doc)->inputs, world, err);
    if (status == TS_OK)
        status = tsctl_plan_bind(*doc, world->cluster, plan, &lost, err);
    if (status == TS_OK && lost > 0)
        status = ts_error_set(err, TS_EINVAL,
                              "%s: %u of its replicas stand on devices that cluster \"%s\" has no more; plan "
                              "again with --current %s",
                              path, lost, world->cluster->name, path);
    if (status == TS_OK)
        return 0;
    ts_plan_destroy(plan);
    tsctl_plan_world_fini(world);
    tsctl_plan_doc_destroy(doc);
    return 1;
}

static enum ts_status explain(const struct tsctl_plan_flags *f, const struct tsctl_plan_world *world,
                              const struct ts_plan *plan, struct ts_error *err)
{
    struct tsctl_plan_doc doc = tsctl_plan_world_doc(world, plan);
    struct tsctl_plan_why why;
    enum ts_status status = tsctl_plan_why(world, plan, &why, err);
    if (status != TS_OK)
        return status;
    if (f->json) {
        struct ts_json *json = tsctl_plan_why_json(&doc, &why);
        status = tsctl_plan_write_json(&json, NULL, err);
    } else {
        tsctl_plan_why_table(&doc, &why, stdout);
    }
    tsctl_plan_why_fini(&why);
    return status;
}

static int run(const struct tsctl_plan_flags *f, const struct ts_conf_strings *arguments,
               struct ts_error *err)
{
    struct tsctl_plan_world world = {.catalogue = NULL};
    struct tsctl_plan_doc *doc = NULL;
    struct ts_plan *plan = NULL;
    int code;
    if (arguments->count > 1) {
        ts_error_set(err, TS_EINVAL, "usage: tsctl plan explain PLAN.json, or with the flags of tsctl plan");
        return 2;
    }
    if (arguments->count == 1) {
        code = open_plan(f, arguments->items[0], &world, &doc, &plan, err);
    } else {
        struct tsctl_plan_search search;
        code = tsctl_plan_make(f, &world, &search, err);
        plan = code ? NULL : search.plan;
    }
    if (code)
        return code;
    enum ts_status status = explain(f, &world, plan, err);
    ts_plan_destroy(&plan);
    tsctl_plan_world_fini(&world);
    tsctl_plan_doc_destroy(&doc);
    return status == TS_OK ? 0 : 1;
}

int tsctl_plan_explain(int argc, char **argv)
{
    struct tsctl_plan_flags f;
    struct ts_conf_strings arguments;
    struct ts_error err = {0};
    int code = tsctl_plan_flags_load(argc, argv, "plan explain", &f, &arguments, &err);
    if (code)
        return code < 0 ? 0 : code;
    code = run(&f, &arguments, &err);
    tsctl_plan_flags_free(&f);
    return code ? tsctl_fail("plan explain", code, err.text) : 0;
}
