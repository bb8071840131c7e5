#include <algorithm>

#include "ee/base/text.h"
#include "ee/eval/placement.h"

namespace ee::eval {

namespace {

constexpr double kLeft = 60, kRight = 60, kTop = 40, kHeight = 280, kBottom = 60, kStep = 26;

// From values to pixels: `low` at the bottom of the drawing, `high` at its top.
struct Axis {
  double low, high;
  double y(double value) const { return kTop + kHeight * (high - value) / (high - low); }
};

std::string text(double x, double y, const char* anchor, const std::string& what) {
  return fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, what);
}

class Plot {
 public:
  explicit Plot(const Placement& placement) : placement_(placement) {
    for (const Candidate& candidate : placement.candidates) {
      saved_.low = std::min(saved_.low, candidate.saved);
      saved_.high = std::max(saved_.high, candidate.saved);
    }
  }

  double width() const { return kLeft + kStep * static_cast<double>(placement_.candidates.size()) + kRight; }

  std::string axes() const {
    std::string svg;
    for (int tick = 0; tick <= 4; ++tick) {
      const double part = tick / 4.0, y = share_.y(part);
      svg += fmt::format("<line x1=\"{}\" x2=\"{:.0f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n",
                         kLeft, width() - kRight, y, y);
      svg += text(kLeft - 6, y + 4, "end", fmt::format("{:.0f}%", 100 * part));
      svg += text(width() - kRight + 6, y + 4, "start",
                  fmt::format("{:.1f}", saved_.low + part * (saved_.high - saved_.low)));
    }
    return svg + fmt::format(
                     "<line x1=\"{}\" x2=\"{:.0f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#c33\" "
                     "stroke-dasharray=\"2 4\"/>\n",
                     kLeft, width() - kRight, saved_.y(0), saved_.y(0));
  }

  std::string bars() const {
    std::string svg;
    for (size_t i = 0; i < placement_.candidates.size(); ++i) {
      const Candidate& candidate = placement_.candidates[i];
      const bool chosen = std::ranges::find(placement_.layers, candidate.layer) != placement_.layers.end();
      const double y = share_.y(candidate.leaving);
      svg += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{}\" height=\"{:.1f}\" fill=\"{}\"><title>layer {}: "
          "{:.1f} % "
          "leave, {:.2f} layers saved</title></rect>\n",
          x(i) - kStep / 2 + 4, y, kStep - 8, kTop + kHeight - y, chosen ? "#2563a8" : "#b9d0e8",
          candidate.layer, 100 * candidate.leaving, candidate.saved);
      const std::string layer = std::to_string(candidate.layer);
      svg += text(x(i), kTop + kHeight + 16, "middle",
                  chosen ? "<tspan font-weight=\"bold\">" + layer + "</tspan>" : layer);
    }
    return svg;
  }

  std::string line(const Axis& axis, double Candidate::*value, const char* color) const {
    std::vector<std::string> points;
    for (size_t i = 0; i < placement_.candidates.size(); ++i)
      points.push_back(fmt::format("{:.1f},{:.1f}", x(i), axis.y(placement_.candidates[i].*value)));
    return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n",
                       base::join(points, " "), color);
  }

  const Axis& share() const { return share_; }
  const Axis& saved() const { return saved_; }

 private:
  static double x(size_t candidate) { return kLeft + kStep * (static_cast<double>(candidate) + 0.5); }

  const Placement& placement_;
  Axis share_{0, 1}, saved_{-1, 1};  // of tokens; layers a token
};

}  // namespace

std::string to_svg(const Placement& placement, const PlacementOptions& options) {
  const Plot plot(placement);
  const double height = kTop + kHeight + kBottom;
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0f}\" height=\"{:.0f}\" "
             "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" "
             "fill=\"white\"/>\n",
             plot.width(), height) +
         text(kLeft, 16, "start",
              fmt::format("One exit behind a layer, {:.0f} % of all tokens like the final layer's: share "
                          "leaving (bars)",
                          100 * options.agreement)) +
         text(kLeft, 32, "start",
              "agreement of all tokens (green, left), layers saved per token (red, right)") +
         plot.axes() + plot.bars() + plot.line(plot.share(), &Candidate::agreement, "#2a8a4a") +
         plot.line(plot.saved(), &Candidate::saved, "#c33") +
         text(plot.width() / 2, height - 12, "middle",
              fmt::format("layer; together the chosen ones (dark) save {:.2f} layers a token",
                          placement.saved)) +
         "</svg>\n";
}

}  // namespace ee::eval
