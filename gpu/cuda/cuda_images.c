/* TS_CUDA_IMAGES: built with the toolkit, whose bin2c has made arrays of the images. */
#include "gpu/cuda/cuda_images.h"

#include <stddef.h>

#include "gpu/cuda/skinny_args.h"

#if defined(TS_CUDA_IMAGES)
extern const unsigned long long cuda_image_codec[];
extern const unsigned long long cuda_image_weights[];
extern const unsigned long long cuda_image_skinny[], cuda_image_gemv[];

static const char *const codec[] = {"cuda_codec_encode", "cuda_codec_decode", NULL};
static const char *const weights[] = {"weights_fill", "weights_quantise", "weights_bias", NULL};

#define NAME(name, ...) #name,
static const char *const skinny[] = {SKINNY_MMA(NAME) NULL};
static const char *const gemv[] = {SKINNY_GEMV(NAME) NULL};

const struct cuda_image cuda_images[] = {{cuda_image_codec, codec},
                                         {cuda_image_weights, weights},
                                         {cuda_image_skinny, skinny},
                                         {cuda_image_gemv, gemv},
                                         {NULL, NULL}};
#else
const struct cuda_image cuda_images[] = {{NULL, NULL}};
#endif
