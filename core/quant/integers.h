/* Grids of integers in a recipe (encode_grid.h). A type that options name is of no matrix yet; each matrix gets its own. */
#ifndef NIBL_QUANT_INTEGERS_H
#define NIBL_QUANT_INTEGERS_H

#include "core/quant/recipe.h"

extern const nibl_quant_grids nibl_quant_integers;

#endif
