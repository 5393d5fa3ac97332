/* Codecs with a side without loss, on any device (kernel_use): the cases of kernel_lossless. */
#ifndef TS_TESTS_GPU_LOSSLESS_FIXTURE_H
#define TS_TESTS_GPU_LOSSLESS_FIXTURE_H

/* cmocka tests. */
void lossless_test_shapes(void **state);     /* head_dim, types, pieces; the other side of each kind */
void lossless_test_exceptions(void **state); /* rows without, with few, with nothing else; special values */
void lossless_test_many_tiles(void **state); /* more than a round of the scan has */
void lossless_test_escapes(void **state);    /* raw tiles of the other side, behind the list */
void lossless_test_layers(void **state);     /* several in a launch */
void lossless_test_next_codec(void **state); /* one workspace, several codecs */
void lossless_test_refusals(void **state);   /* damaged payloads: refused where the CPU refuses */

#endif
