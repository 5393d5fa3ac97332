/*
 * Inner to common/inputs: the shapes of a model from its Hugging Face config.json. Only what scheduling needs
 * is read, so that models that the engine cannot run (other families, quantised weights are refused) can be
 * planned for; gpu/model reads the file for the engine.
 */
#ifndef TS_INPUTS_HF_H
#define TS_INPUTS_HF_H

#include "common/base/ts_error.h"
#include "common/core/ts_model.h"

enum ts_status inputs_hf_file(const char *path, struct ts_model *out, struct ts_error *err);
enum ts_status inputs_hf_folder(const char *path, struct ts_model *out, struct ts_error *err);

bool inputs_dtype(const char *name, enum ts_dtype *out); /* "bfloat16" and so on */
enum ts_dtype inputs_kv_dtype(enum ts_dtype weights);

#endif
