/* Memory planned from a header alone, before any of it is allocated. */
#ifndef NIBL_PLAN_H
#define NIBL_PLAN_H

#include "core/dtype.h"
#include "core/gguf.h"

/* Contract of nibl_loader_plan. */
nibl_status nibl_model_plan(nibl_gguf *gguf, const nibl_dtype *quantize, nibl_plan *plan);

#endif
