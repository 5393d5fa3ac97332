#include "common/base/ts_hist.h"

#include <math.h>
#include <stdlib.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"

/* 2 MiB of doubles: every sample of an ordinary run is kept, and a p99 of a longer one rests on 2,600 samples
 * of its tail. */
#define HIST_SAMPLES_MAX ((size_t)262144)

void ts_hist_init(struct ts_hist *hist)
{
    *hist = (struct ts_hist){0};
}

void ts_hist_fini(struct ts_hist *hist)
{
    ts_free(hist->values);
    *hist = (struct ts_hist){0};
}

void ts_hist_add(struct ts_hist *hist, double value)
{
    hist->seen++;
    hist->sum += value;
    if (hist->count < HIST_SAMPLES_MAX) {
        void *values = hist->values;
        ts_array_reserve(&values, &hist->capacity, hist->count + 1, sizeof *hist->values);
        hist->values = values;
        hist->values[hist->count++] = value;
        hist->sorted = 0;
        return;
    }
    /* Vitter's algorithm R. Sorting permutes the slots, which leaves a uniformly drawn victim uniform. */
    uint64_t slot = ts_splitmix64(hist->seen) % hist->seen;
    if (slot < hist->count) {
        hist->values[slot] = value;
        hist->sorted = 0;
    }
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double ts_hist_quantile(struct ts_hist *hist, double q)
{
    if (hist->count == 0) {
        return NAN;
    }
    if (!hist->sorted) {
        qsort(hist->values, hist->count, sizeof *hist->values, compare_doubles);
        hist->sorted = 1;
    }
    double rank = ceil(q * (double)hist->count);
    if (!(rank >= 1)) {
        return hist->values[0];
    }
    return hist->values[rank >= (double)hist->count ? hist->count - 1 : (size_t)rank - 1];
}

double ts_hist_mean(const struct ts_hist *hist)
{
    return hist->seen ? hist->sum / (double)hist->seen : NAN;
}
