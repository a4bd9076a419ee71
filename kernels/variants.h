/* Prototypes of all variants, expanded from the table. */
#ifndef NIBL_VARIANTS_H
#define NIBL_VARIANTS_H

#include "kernels/kernels.h"

#define NIBL_OP(name, args, check) typedef void nibl_op_##name args;
#include "kernels/kernels.def"
#define NIBL_IMPL(name, isa, features) nibl_op_##name nibl_##name##_##isa;
#include "kernels/kernels.def"

#endif
