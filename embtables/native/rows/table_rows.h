// The rows of one table: weights, optimizer state and bookkeeping in arenas that grow, addressed by row number.
//
// A row that is about to change is `touch`ed: it then belongs to the present cut, is listed in its log, and goes to the
// image that is being made of the table, if there is one (row_image.h).
//
// A weight is `scale` times what its arena holds: a factor on all of them (decay) takes no pass over the rows. Columns that
// are read and written by row number (row_columns.h), and those of an image, are what the arena holds.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/cut_log.h"
#include "base/memory.h"
#include "rows/initial_rows.h"
#include "rows/row_arrays.h"
#include "rows/row_kernels.h"
#include "rows/row_columns.h"
#include "rows/rules.h"

namespace embtables {

class RowImage;

// Floats from row to row: whole cache lines, or a power of two below one, so that no small row lies across two.
int stride_of(int dim);

// What never changes about a table's rows.
struct TableConfig {
    int dim;
    InitialRow initial;
    RuleConfig optimizer;
};

// Bytes of a row in all arenas.
std::uint64_t row_bytes(const TableConfig& config, bool keyed);

class TableRows {
public:
    // `keyed`: rows belong to keys that are not their numbers.
    TableRows(const TableConfig& config, bool keyed, std::uint32_t cut);
    ~TableRows();

    // Makes room for `rows` rows; new rows are not initialised. Pointers from before are void.
    void reserve(std::uint64_t rows);

    // Gives the row the key's initial values and fresh state. It is in no list of changes until it is touched. Rows may be
    // reset on several threads.
    void reset(std::uint32_t row, std::int64_t key);

    // What all weights are times; 1 of a new table. In (0, 1], so that no weight grows.
    double scale() const { return scale_; }
    float weight_scale() const { return static_cast<float>(scale_); }
    void set_scale(double scale) { scale_ = scale; }
    // Makes the scale 1: rows below `end` are multiplied by it, and those that somebody has have changed.
    void fold_scale(std::uint64_t end, int threads);

    // Nobody has the row any more.
    void release(std::uint32_t row);

    void touch(std::uint32_t row);
    void touch(const std::uint32_t* rows, std::size_t n, int threads);  // no row twice
    void see(std::uint32_t row, std::uint32_t now);

    // Gives rows, none twice, to keys of a saved table.
    void place(const std::uint32_t* rows, const std::int64_t* keys, const std::uint32_t* seen, std::size_t n, int threads);

    // Rows that an update has touched, which does all but list them.
    void note_touched(const std::uint32_t* rows, std::size_t n);

    // Changes from now on belong to `cut`.
    void begin_cut(std::uint32_t cut);
    void forget(std::uint32_t cut) { touched_.forget(cut); }
    std::uint32_t cut() const { return cut_; }
    const CutLog<std::uint32_t>& touched() const { return touched_; }

    // All rows below `end` as they are now. An image that was not finished is, first; and this one at once, unless a cut
    // has just begun.
    std::shared_ptr<RowImage> capture(std::uint64_t end);
    const ImageView& image() const { return image_view_; }

    // Floats of a column in a row. Throws std::invalid_argument where the table has no such column.
    std::size_t width_of(Column column) const;

    const TableConfig& config() const { return config_; }
    bool is_keyed() const { return keyed_; }
    int stride() const { return stride_; }
    int num_states() const { return state_of(config_.optimizer.rule).num_arrays; }
    RowArrays arrays() const;
    float* weight() const { return weight_.as<float>(); }
    float* state(int which) const { return which < num_states() ? states_[which].as<float>() : nullptr; }
    RowMeta* meta() const { return meta_.as<RowMeta>(); }

    // How many steps of its optimizer there were.
    std::uint64_t steps() const { return steps_; }
    void set_steps(std::uint64_t steps) { steps_ = steps; }

    // The optimizer of the next step at `factor` times the configured rate; counts the step.
    StepRule next_step(double factor) { return step_of(config_.optimizer, factor, ++steps_); }

    std::uint64_t row_bytes() const { return embtables::row_bytes(config_, keyed_); }

private:
    friend class RowImage;
    void save(std::uint32_t row);
    void finish_image();
    void end_image();

    TableConfig config_;
    bool keyed_;
    int stride_;
    Region weight_, states_[2], meta_, keys_;
    std::uint64_t steps_ = 0;
    double scale_ = 1.0;
    std::uint32_t cut_;
    CutLog<std::uint32_t> touched_;
    bool is_cut_new_ = false;  // nothing was touched in it
    std::shared_ptr<RowImage> image_;
    ImageView image_view_{};
};

}  // namespace embtables
