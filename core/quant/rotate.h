/* Rotations that fold away (QuaRot, Ashkboos et al., arXiv:2404.00456): the residual stream is turned by an orthogonal
 * matrix R1, with the weights of norms folded into the matrices behind them, and each key/value head by an R2 between the
 * matrices of values and outputs. The model computes the same; its weights have no outliers. Matrices are random signs, then
 * a Hadamard matrix: a Kronecker product of Sylvester's and Paley's. */
#ifndef NIBL_ROTATE_H
#define NIBL_ROTATE_H

#include "core/model.h"

typedef struct nibl_rotation nibl_rotation;

/* Of `width` dimensions; the same for the same seed. NIBL_E_UNSUPPORTED where no such matrix is known here. */
nibl_status nibl_rotation_new(uint32_t width, uint64_t seed, nibl_rotation **out);
void nibl_rotation_free(nibl_rotation *rotation);

/* Turns `x` (width, inner) along its first dimension; `room` is as large. */
void nibl_rotation_apply(const nibl_rotation *rotation, float *x, size_t inner, float *room);

/* NIBL_E_UNSUPPORTED tells what of the model does not commute with rotations. */
nibl_status nibl_rotate_check(const nibl_model *model);

/* A layer's seven matrices, turned, in F32: q, k, v, o, gate, up, down (gate empty where there is none). The caller frees
 * their data, after an error too. */
enum { NIBL_ROTATED = 7 };
nibl_status nibl_rotate_layer(const nibl_model *model, const nibl_layer *layer, const nibl_rotation *stream,
                              nibl_matrix out[NIBL_ROTATED]);

/* The matrices in that order. */
void nibl_rotate_matrices(nibl_layer *layer, nibl_matrix *out[NIBL_ROTATED]);

#endif
