// Arithmetic operators of tensors without the rest of ATen (which the header pulls in unless told otherwise).
#pragma once

#ifndef AT_PER_OPERATOR_HEADERS
#define AT_PER_OPERATOR_HEADERS
#endif
#include <ATen/TensorOperators.h>
