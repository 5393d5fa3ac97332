/*
 * What a KV codec does to the logits: the same continuation scored twice, once on the KV as computed and once
 * on the KV as a transfer leaves it. Pure functions over two tables of logits [rows][vocab]; any thread.
 */
#ifndef TSCTL_QUALITY_H
#define TSCTL_QUALITY_H

#include <stddef.h>
#include <stdint.h>

struct tsctl_quality {
    size_t rows;
    double kl_mean, kl_p99, kl_max; /* nats, of KL(reference || other) of each row; 0 where they are equal */
    double top1;                    /* share of the rows whose best token is the same */
};

/* `rows` >= 1. */
void tsctl_quality_of(const float *reference, const float *other, size_t rows, uint32_t vocab,
                      struct tsctl_quality *out);

#endif
