/* Whether counts of draws fit probabilities. Include cmocka before. */
#ifndef TS_TESTS_GPU_CHI_SQUARE_H
#define TS_TESTS_GPU_CHI_SQUARE_H

#include <math.h>
#include <stdint.h>

/* Fails where chi-square is beyond its 0.999 quantile, by the approximation of Wilson and Hilferty, or where
 * something was drawn that has probability 0. */
static inline void chi_square_check(const uint32_t *counts, const double *probability, uint32_t kinds,
                                    uint32_t draws)
{
    uint32_t degrees = 0;
    double chi = 0;
    for (uint32_t i = 0; i < kinds; i++) {
        double mean = probability[i] * draws;
        if (probability[i] == 0) {
            assert_int_equal(counts[i], 0);
            continue;
        }
        chi += (counts[i] - mean) * (counts[i] - mean) / mean;
        degrees++;
    }
    degrees--;
    double spread = 2.0 / (9.0 * degrees), limit = degrees * pow(1 - spread + 3.09 * sqrt(spread), 3);
    if (degrees > 0 && chi > limit)
        fail_msg("chi-square %g of %u degrees, expected at most %g", chi, degrees, limit);
}

#endif
