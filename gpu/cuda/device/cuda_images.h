/*
 * The kernels that are in this binary: one image for each .cu source, of code for several architectures and
 * of PTX for later ones. cuda_images.c is in two versions of the build: with the toolkit and without.
 */
#ifndef TS_GPU_CUDA_DEVICE_CUDA_IMAGES_H
#define TS_GPU_CUDA_DEVICE_CUDA_IMAGES_H

struct cuda_image {
    const void *data;           /* NULL: the last entry */
    const char *const *kernels; /* their names, the last one NULL */
};

extern const struct cuda_image cuda_images[];

#endif
