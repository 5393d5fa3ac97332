#include "services/tsctl/tsctl_quality.h"

#include <math.h>
#include <stdlib.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

static uint32_t best_of(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static double log_sum(const float *logits, uint32_t vocab)
{
    uint32_t best = best_of(logits, vocab);
    double top = logits[best], sum = 1; /* of the best one itself */
    for (uint32_t i = 0; i < vocab; i++)
        sum += i == best ? 0 : exp(logits[i] - top);
    return top + log(sum);
}

/* Not negative but for rounding, which is cut off. Equal rows give 0: every difference is. */
static double divergence(const float *reference, const float *other, uint32_t vocab)
{
    double p_sum = log_sum(reference, vocab), q_sum = log_sum(other, vocab), sum = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        double p = reference[i] - p_sum;
        if (isfinite(p)) /* a token that cannot come adds nothing */
            sum += exp(p) * (p - (other[i] - q_sum));
    }
    return sum < 0 ? 0 : sum;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void tsctl_quality_of(const float *reference, const float *other, size_t rows, uint32_t vocab,
                      struct tsctl_quality *out)
{
    TS_ASSERT(rows > 0 && vocab > 0);
    double *kl = ts_xcalloc(rows, sizeof *kl), sum = 0;
    size_t same = 0;
    for (size_t i = 0; i < rows; i++) {
        const float *p = reference + i * vocab, *q = other + i * vocab;
        kl[i] = divergence(p, q, vocab);
        sum += kl[i];
        same += best_of(p, vocab) == best_of(q, vocab);
    }
    qsort(kl, rows, sizeof *kl, by_value);
    *out = (struct tsctl_quality){.rows = rows,
                                  .kl_mean = sum / (double)rows,
                                  .kl_p99 = kl[(rows * 99 + 99) / 100 - 1], /* nearest rank */
                                  .kl_max = kl[rows - 1],
                                  .top1 = (double)same / (double)rows};
    ts_free(kl);
}
