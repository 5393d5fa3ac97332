/* What counts as a change: thresholds, chance, links, promises not kept, and that a look moves the mark. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "services/planner/planner_trigger.h"

#define STR(text)                                                                                            \
    {                                                                                                        \
        text, sizeof text - 1                                                                                \
    }

struct seen { /* two classes, code and talk, and how they are measured; 0 = as in the base */
    double code_rate, code_prompt, talk_rate, talk_output;
    double window_s, burst, attained, link;
    double at_s;
};

static const struct seen base = {5, 2000, 5, 200, 600, 1, -1, 1e9, 100};

struct store {
    struct ts_workload_class classes[2];
    struct ts_workload workload;
    struct ts_link_item link;
    struct ts_link_items links;
};

static double value(double own, double of_base)
{
    return own != 0 ? own : of_base;
}

static void fill(const struct seen *own, struct store *out)
{
    const struct seen filled = {value(own->code_rate, base.code_rate),
                                value(own->code_prompt, base.code_prompt),
                                value(own->talk_rate, base.talk_rate),
                                value(own->talk_output, base.talk_output),
                                value(own->window_s, base.window_s),
                                value(own->burst, base.burst),
                                value(own->attained, base.attained),
                                value(own->link, base.link),
                                own->at_s};
    const struct seen *s = &filled;
    out->classes[0] = (struct ts_workload_class){
        s->code_rate, s->code_prompt, 1.2 * s->code_prompt * s->code_prompt, 20, 500, 0, 0};
    out->classes[1] = (struct ts_workload_class){
        s->talk_rate, 300, 1e5, s->talk_output, 1.2 * s->talk_output * s->talk_output, 0, 0};
    out->workload = (struct ts_workload){.arrivals_per_s = s->code_rate + s->talk_rate,
                                         .window_s = s->window_s,
                                         .burst = s->burst,
                                         .attained = s->attained,
                                         .classes = {out->classes, 2}};
    out->link = (struct ts_link_item){.from = STR("a"), .to = STR("b"), .goodput_bytes_per_s = s->link};
    out->links = (struct ts_link_items){&out->link, 1};
}

struct trigger_case {
    const char *name;
    struct seen now;
    enum planner_cause cause;
    const char *words;
};

static const struct trigger_case cases[] = {
    {"as it was", {.at_s = 101}, PLANNER_CAUSE_NONE, ""},
    {"a little more", {.code_rate = 6, .talk_rate = 6}, PLANNER_CAUSE_NONE, ""},
    {"more", {.code_rate = 6.6, .talk_rate = 6.6}, PLANNER_CAUSE_RATE, "from 10 to 13.2"},
    {"less", {.code_rate = 3, .talk_rate = 3}, PLANNER_CAUSE_RATE, "from 10 to 6"},
    {"more, but bursts are like that",
     {.code_rate = 6.6, .talk_rate = 6.6, .burst = 80},
     PLANNER_CAUSE_NONE,
     ""},
    {"more, but hardly seen", {.code_rate = 6.6, .talk_rate = 6.6, .window_s = 9}, PLANNER_CAUSE_NONE, ""},
    {"longer prompts", {.code_prompt = 3000}, PLANNER_CAUSE_LENGTH, "from 1150 to 1650 tokens"},
    {"longer outputs", {.talk_output = 300}, PLANNER_CAUSE_LENGTH, "outputs went from 110 to 160"},
    {"another mix",
     {.code_rate = 2.9, .talk_rate = 7.1, .code_prompt = 3200, .talk_output = 150},
     PLANNER_CAUSE_MIX,
     "21 % of the requests"},
    {"a slower link", {.link = 0.6e9}, PLANNER_CAUSE_LINK, "from a to b went from 1e+03 to 600 MB/s"},
    {"a link that is lost count of", {.link = NAN}, PLANNER_CAUSE_NONE, ""},
    {"promised more", {.attained = 0.7, .at_s = 800}, PLANNER_CAUSE_ATTAINED, "70 % of the requests"},
    {"promised more, but measured before", {.attained = 0.7, .at_s = 120}, PLANNER_CAUSE_NONE, ""},
    {"as promised", {.attained = 0.86, .at_s = 110}, PLANNER_CAUSE_NONE, ""},
    {"a look all the same", {.at_s = 130}, PLANNER_CAUSE_PERIOD, "30 s ago"},
    {"too few", {.code_rate = 50, .window_s = 0.5}, PLANNER_CAUSE_NONE, ""},
};

static void test_cases(void **state)
{
    (void)state;
    const struct planner_trigger_rule rule = planner_trigger_defaults();
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct planner_basis basis = {.at_s = 0};
        struct store before, now;
        char words[160] = "";
        fill(&base, &before);
        fill(&cases[i].now, &now);
        planner_basis_set(&basis, &rule, &before.workload, &before.links, 0.9, base.at_s);
        enum planner_cause cause = planner_basis_check(&basis, &rule, &now.workload, &now.links,
                                                       value(cases[i].now.at_s, 101), words, sizeof words);
        if (cause != cases[i].cause || !strstr(words, cases[i].words))
            fail_msg("%s: cause %d, \"%s\"", cases[i].name, cause, words);
        planner_basis_forget(&basis);
    }
}

/* Before anything is measured only the first measurement counts; nothing is promised by guesses. */
static void test_first(void **state)
{
    (void)state;
    const struct planner_trigger_rule rule = planner_trigger_defaults();
    struct planner_basis basis = {.at_s = 0};
    struct ts_workload nothing = {.attained = 0};
    struct store now;
    char words[160] = "";
    fill(&base, &now);
    planner_basis_set(&basis, &rule, &nothing, &now.links, 0.9, 100);
    assert_int_equal(planner_basis_check(&basis, &rule, &nothing, &now.links, 1e6, words, sizeof words),
                     PLANNER_CAUSE_NONE);
    assert_int_equal(planner_basis_check(&basis, &rule, &now.workload, &now.links, 101, words, sizeof words),
                     PLANNER_CAUSE_MEASURED);
    assert_string_equal(words, "6000 requests are measured now");
    planner_basis_forget(&basis);
    planner_basis_forget(&basis);
}

/* A load that swings about a threshold: each look moves the mark, so a swing is at most one look. */
static void test_swing(void **state)
{
    (void)state;
    const struct planner_trigger_rule rule = planner_trigger_defaults();
    struct planner_basis basis = {.at_s = 0};
    struct store now;
    char words[160];
    int looks = 0;
    fill(&base, &now);
    planner_basis_set(&basis, &rule, &now.workload, &now.links, 0.9, 0);
    for (int t = 1; t < 29; t++) { /* 10, 12.8, 10, 12.8, ...: within the threshold of either */
        struct seen s = base;
        s.code_rate = s.talk_rate = t % 2 ? 6.4 : 5;
        fill(&s, &now);
        looks += planner_basis_check(&basis, &rule, &now.workload, &now.links, t, words, sizeof words) != 0;
    }
    assert_int_equal(looks, 0);
    for (int t = 0; t < 20; t++) { /* a slow rise by a fifth: one look each 0.3 of it */
        struct seen s = base;
        s.code_rate = s.talk_rate = 5 + 0.2 * t;
        fill(&s, &now);
        if (planner_basis_check(&basis, &rule, &now.workload, &now.links, 1, words, sizeof words)) {
            looks++;
            planner_basis_set(&basis, &rule, &now.workload, &now.links, 0.9, 0);
        }
    }
    assert_int_equal(looks, 2);
    planner_basis_forget(&basis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_first),
        cmocka_unit_test(test_swing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
