/* TS_CUDA_IMAGES: built with the toolkit, whose bin2c has made arrays of the images. */
#include "gpu/cuda/device/cuda_images.h"

#include <stddef.h>

#include "gpu/cuda/attention/attention_args.h"
#include "gpu/cuda/products/skinny_args.h"
#include "gpu/cuda/products/tile_args.h"

#if defined(TS_CUDA_IMAGES)
extern const unsigned long long cuda_image_codec[], cuda_image_lossless[];
extern const unsigned long long cuda_image_weights[];
extern const unsigned long long cuda_image_skinny[], cuda_image_gemv[], cuda_image_widen[];
extern const unsigned long long cuda_image_tile[];
extern const unsigned long long cuda_image_prefill[], cuda_image_decode[];
extern const unsigned long long cuda_image_rows[], cuda_image_sample[];

static const char *const codec[] = {"cuda_codec_encode_any_f16",
                                    "cuda_codec_encode_any_bf16",
                                    "cuda_codec_encode_64_f16",
                                    "cuda_codec_encode_64_bf16",
                                    "cuda_codec_encode_64c_f16",
                                    "cuda_codec_encode_64c_bf16",
                                    "cuda_codec_encode_128_f16",
                                    "cuda_codec_encode_128_bf16",
                                    "cuda_codec_encode_128c_f16",
                                    "cuda_codec_encode_128c_bf16",
                                    "cuda_codec_decode_any_f16",
                                    "cuda_codec_decode_any_bf16",
                                    "cuda_codec_decode_64_f16",
                                    "cuda_codec_decode_64_bf16",
                                    "cuda_codec_decode_64c_f16",
                                    "cuda_codec_decode_64c_bf16",
                                    "cuda_codec_decode_128_f16",
                                    "cuda_codec_decode_128_bf16",
                                    "cuda_codec_decode_128c_f16",
                                    "cuda_codec_decode_128c_bf16",
                                    "cuda_codec_means_f16",
                                    "cuda_codec_means_bf16",
                                    NULL};
static const char *const lossless[] = {"cuda_lossless_pack_f16",
                                       "cuda_lossless_pack_bf16",
                                       "cuda_lossless_scan",
                                       "cuda_lossless_list_f16",
                                       "cuda_lossless_list_bf16",
                                       "cuda_lossless_count_f16",
                                       "cuda_lossless_count_bf16",
                                       "cuda_lossless_check",
                                       "cuda_lossless_unpack_f16",
                                       "cuda_lossless_unpack_bf16",
                                       NULL};
static const char *const weights[] = {"weights_fill", "weights_quantise", "weights_bias", NULL};

#define NAME(name, ...) #name,
static const char *const skinny[] = {SKINNY_MMA(NAME) SKINNY_RING(NAME) NULL};
static const char *const gemv[] = {SKINNY_GEMV(NAME) NULL};
static const char *const widen[] = {"skinny_widen_f16", "skinny_widen_bf16", NULL};
static const char *const tile[] = {TILE_KERNELS(NAME) NULL};

#define PREFILL(w, slabs) "cuda_prefill_f16_" #w #slabs, "cuda_prefill_bf16_" #w #slabs,
#define PREFILL_1(w)      PREFILL(w, _1)
#define PREFILL_2(w)      PREFILL(w, _2)
#define DECODE(w)         "cuda_decode_f16_" #w, "cuda_decode_bf16_" #w,
static const char *const prefill[] = {ATTENTION_WIDTHS(PREFILL_1) ATTENTION_WIDE_TILES(PREFILL_2) NULL};
static const char *const decode[] = {ATTENTION_WIDTHS(DECODE) NULL};

static const char *const rows[] = {"cuda_rows_embed", "cuda_rows_norm", "cuda_rows_qkv", "cuda_rows_silu",
                                   NULL};
static const char *const sample[] = {"cuda_sample_scan", "cuda_sample_pick", NULL};

const struct cuda_image cuda_images[] = {
    {cuda_image_codec, codec},     {cuda_image_lossless, lossless}, {cuda_image_weights, weights},
    {cuda_image_skinny, skinny},   {cuda_image_gemv, gemv},         {cuda_image_widen, widen},
    {cuda_image_prefill, prefill}, {cuda_image_decode, decode},     {cuda_image_rows, rows},
    {cuda_image_sample, sample},   {cuda_image_tile, tile},         {NULL, NULL}};
#else
const struct cuda_image cuda_images[] = {{NULL, NULL}};
#endif
