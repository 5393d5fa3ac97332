#include "services/tsctl/tsctl_plan_world.h"

enum ts_status tsctl_plan_score(const struct tsctl_plan_world *world, const struct ts_plan *plan,
                                struct tsctl_plan_score *out, struct ts_error *err)
{
    out->shapes = plan_shapes_new(&world->problem);
    out->eval = plan_eval_new(out->shapes);
    plan_state_init(&out->state);
    enum ts_status status = plan_state_of_plan(out->shapes, plan, &out->state, err);
    if (status == TS_OK)
        plan_eval_run(out->eval, &out->state, &out->result);
    else
        tsctl_plan_score_fini(out);
    return status;
}

void tsctl_plan_score_fini(struct tsctl_plan_score *score)
{
    plan_state_fini(&score->state);
    plan_eval_destroy(&score->eval);
    plan_shapes_destroy(&score->shapes);
}
