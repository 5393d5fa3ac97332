/* TS_CUDA_IMAGES: built with the toolkit, whose bin2c has made arrays of the images. */
#include "gpu/cuda/cuda_images.h"

#include <stddef.h>

#if defined(TS_CUDA_IMAGES)
extern const unsigned long long cuda_image_codec[];

static const char *const codec[] = {"cuda_codec_encode", "cuda_codec_decode", NULL};

const struct cuda_image cuda_images[] = {{cuda_image_codec, codec}, {NULL, NULL}};
#else
const struct cuda_image cuda_images[] = {{NULL, NULL}};
#endif
