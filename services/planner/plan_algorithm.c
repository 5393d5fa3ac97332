#include "services/planner/plan_algorithm.h"

#include <string.h>

#include "common/base/ts_assert.h"

static const struct plan_algorithm *const table[] = {
    &plan_algorithm_thunder,    &plan_algorithm_uniform,   &plan_algorithm_colocated,
    &plan_algorithm_splitwise,  &plan_algorithm_distserve, &plan_algorithm_hexgen,
    &plan_algorithm_hexgen2,    &plan_algorithm_helix,     &plan_algorithm_paper,
    &plan_algorithm_exhaustive,
};

const struct plan_algorithm *plan_algorithm_at(size_t index)
{
    return index < TS_ARRAY_SIZE(table) ? table[index] : NULL;
}

const struct plan_algorithm *plan_algorithm_find(const char *name)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(table); i++) {
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    }
    return NULL;
}
