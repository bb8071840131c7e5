#include "ee/parallel/tensor_ranks.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "ee/base/error.h"

namespace ee::parallel {

namespace {

using torch::autograd::AutogradContext, torch::autograd::variable_list;

at::Tensor all_reduced(const comm::Group& group, const at::Tensor& partial) {
  const at::Tensor sum = partial.clone(at::MemoryFormat::Contiguous);
  group.all_reduce(sum);
  return sum;
}

// [batch, seq / ranks, hidden] of every rank -> [batch, seq, hidden].
at::Tensor all_gathered(const comm::Group& group, const at::Tensor& x) {
  const int64_t ranks = group.size(), batch = x.size(0), seq = x.size(1), hidden = x.size(2);
  const at::Tensor all = at::empty({ranks * batch, seq, hidden}, x.options());
  group.all_gather(all, x.contiguous());
  return all.view({ranks, batch, seq, hidden}).transpose(0, 1).reshape({batch, ranks * seq, hidden});
}

// Parts [batch, seq, hidden] -> this rank's tokens of their sum, [batch, seq / ranks, hidden].
at::Tensor reduce_scattered(const comm::Group& group, const at::Tensor& partial) {
  const int64_t ranks = group.size(), batch = partial.size(0), seq = partial.size(1) / ranks,
                hidden = partial.size(2);
  const at::Tensor by_rank = partial.view({batch, ranks, seq, hidden}).transpose(0, 1).contiguous();
  const at::Tensor own = at::empty({batch, seq, hidden}, partial.options());
  group.reduce_scatter(own, by_rank.view({ranks * batch, seq, hidden}));
  return own;
}

struct Enter : torch::autograd::Function<Enter> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const TensorRanks* ranks) {
    context->saved_data["ranks"] = reinterpret_cast<int64_t>(ranks);
    return ranks->sequence() ? ranks->gather_tokens(x) : x.alias();
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradient) {
    const auto* ranks = reinterpret_cast<const TensorRanks*>(context->saved_data["ranks"].toInt());
    return {ranks->sum(gradient[0]), {}};
  }
};

struct Leave : torch::autograd::Function<Leave> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& partial, const TensorRanks* ranks) {
    context->saved_data["ranks"] = reinterpret_cast<int64_t>(ranks);
    return ranks->sum(partial);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradient) {
    const auto* ranks = reinterpret_cast<const TensorRanks*>(context->saved_data["ranks"].toInt());
    return {ranks->gather_tokens(gradient[0]), {}};
  }
};

bool records(const at::Tensor& x) { return x.requires_grad() && at::GradMode::is_enabled(); }

}  // namespace

TensorRanks::TensorRanks(comm::Group group, bool sequence) {
  if (group.size() == 1) return;
  group_ = std::move(group);
  sequence_ = sequence;
}

at::Tensor TensorRanks::enter(const at::Tensor& x) const {
  if (!group_) return x;
  return records(x) ? Enter::apply(x, this) : gather_tokens(x);
}

at::Tensor TensorRanks::leave(const at::Tensor& partial) const {
  if (!group_) return partial;
  return records(partial) ? Leave::apply(partial, this) : sum(partial);
}

at::Tensor TensorRanks::gather_tokens(const at::Tensor& x) const {
  return sequence_ ? all_gathered(*group_, x) : x;
}

at::Tensor TensorRanks::own_tokens(const at::Tensor& x) const {
  const int64_t own = x.size(1) / size();
  return sequence_ ? x.narrow(1, rank() * own, own) : x;
}

at::Tensor TensorRanks::sum(const at::Tensor& partial) const {
  if (!group_) return partial;
  return sequence_ ? reduce_scattered(*group_, partial.contiguous()) : all_reduced(*group_, partial);
}

at::Tensor TensorRanks::sum_all(const at::Tensor& partial) const {
  return group_ ? all_reduced(*group_, partial) : partial;
}

at::Tensor TensorRanks::gather_columns(const at::Tensor& x, Split split, int64_t whole) const {
  if (!group_) return x;
  const auto part = [&](int64_t rank) { return slice_of({}, split, {whole}, rank, size()).length; };
  int64_t widest = 0;  // parts may be unequal: they travel padded to the widest
  for (int64_t rank = 0; rank < size(); ++rank) widest = std::max(widest, part(rank));
  const at::Tensor rows = x.flatten(0, -2);  // [n, own part]
  const int64_t count = rows.size(0);
  at::Tensor own = at::zeros({count, widest}, rows.options());
  own.narrow(1, 0, rows.size(1)).copy_(rows);
  const at::Tensor all = at::empty({size() * count, widest}, rows.options());
  group_->all_gather(all, own);
  std::vector<at::Tensor> parts;
  for (int64_t rank = 0; rank < size(); ++rank)
    parts.push_back(all.narrow(0, rank * count, count).narrow(1, 0, part(rank)));
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = whole;
  return at::cat(parts, 1).view(sizes);
}

at::Tensor TensorRanks::gather_vocabulary(const at::Tensor& logits, int64_t vocabulary) const {
  return gather_columns(logits, Split::vocabulary, vocabulary);
}

TensorRanks::OwnRows TensorRanks::own_rows(const at::Tensor& ids, int64_t vocabulary) const {
  const Slice own = own_slice({}, Split::vocabulary, {vocabulary});
  const at::Tensor row = ids.sub(own.begin);
  const at::Tensor here = row.ge(0).logical_and(row.lt(own.length));
  return {.row = row.mul(here), .here = here};
}

at::Tensor TensorRanks::vocabulary_rows(const at::Tensor& matrix, const at::Tensor& ids,
                                        int64_t vocabulary) const {
  if (!group_) return at::embedding(matrix, ids);
  if (matrix.size(0) == 0) {
    std::vector<int64_t> sizes = ids.sizes().vec();
    sizes.push_back(matrix.size(1));
    return at::zeros(sizes, matrix.options());
  }
  const auto [row, here] = own_rows(ids, vocabulary);
  return at::embedding(matrix, row).mul_(here.unsqueeze(-1));
}

void TensorRanks::add_to_vocabulary_rows(const at::Tensor& matrix, const at::Tensor& ids,
                                         const at::Tensor& values, int64_t vocabulary) const {
  if (!group_) {
    matrix.index_add_(0, ids, values);
  } else if (matrix.size(0) > 0) {
    const auto [row, here] = own_rows(ids, vocabulary);
    matrix.index_add_(0, row, values.mul(here.unsqueeze(-1)));
  }
}

std::optional<kernels::VocabularyPart> TensorRanks::vocabulary_part(int64_t vocabulary) const {
  if (!group_) return std::nullopt;
  return kernels::VocabularyPart{.first = own_slice({}, Split::vocabulary, {vocabulary}).begin,
                                 .vocabulary = vocabulary,
                                 .gather = [group = *group_](const at::Tensor& own) {
                                   std::vector<int64_t> sizes = own.sizes().vec();
                                   sizes.insert(sizes.begin(), group.size());
                                   const at::Tensor all = at::empty(sizes, own.options());
                                   group.all_gather(all.flatten(0, 1), own.contiguous());
                                   return all;
                                 }};
}

}  // namespace ee::parallel
