// Output-stationary systolic array with its control: C = A·B, m along the rows, n along the columns.
//
// A job is a number of folds. A fold takes length_i pairs of vectors, a column of A and a row of B, and gives Rows vectors of
// sums, the bottom row's first, which shift out through drain registers. Inputs are skewed and sums aligned inside.
//
// In a cycle with ready_o the array takes activations_i and weights_i. stall_i freezes everything, also what shows on sums_o.
// A start is taken in a cycle without stall in which the array is not busy; one of no folds or a length of 0 begins nothing.
// busy_o is high for as many cycles as the job takes, from its first operands to the last sum in the bottom row's register.
module systolic_os #(
  parameter int Rows         = 4,
  parameter int Columns      = 4,
  parameter int FoldOverlap  = 2, // 0: a fold enters when the one before has left; 2: right behind it, Rows cycles apart at least
  parameter int Float        = 0,
  parameter int Saturate     = 0,
  parameter int ExponentBits = 8,
  parameter int MantissaBits = 7,
  parameter int HasInf       = 1,
  parameter int Width        = Float != 0 ? 1 + ExponentBits + MantissaBits : 8
) (
  input  logic                     clk_i,
  input  logic                     rst_ni,
  input  logic                     stall_i,
  input  logic                     start_i,  // taken when neither busy nor stalled
  input  logic [15:0]              folds_i,
  input  logic [15:0]              length_i,
  output logic                     busy_o,
  output logic                     ready_o,
  input  logic [Rows*Width-1:0]    activations_i,
  input  logic [Columns*Width-1:0] weights_i,
  output logic                     valid_o,
  output logic [Columns*32-1:0]    sums_o
);
  localparam logic [15:0] Way = 16'(2 * Rows + Columns - 2); // cycles from a fold's last operands to its last sum
  localparam logic [15:0] Gap = 16'(Rows - 1);               // a fold's results need Rows cycles to leave a column
  localparam int          CountBits = $clog2(Rows + 1);

  // --- control --------------------------------------------------------------------------------------------------------------

  logic [15:0] length, to_stream, stream_left, gap_left, leaving;
  logic        enable, streaming, begin_stream, stream, last;

  assign enable       = !stall_i;
  assign streaming    = stream_left != 0;
  assign begin_stream = to_stream != 0 && !streaming && (FoldOverlap == 2 ? gap_left == 0 : leaving == 0);
  assign stream       = begin_stream || streaming;
  assign last         = begin_stream ? length == 1 : stream_left == 1;

  assign busy_o  = to_stream != 0 || stream || leaving != 0;
  assign ready_o = stream && enable;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      length      <= '0;
      to_stream   <= '0;
      stream_left <= '0;
      gap_left    <= '0;
      leaving     <= '0;
    end else if (enable) begin
      if (!busy_o) begin
        if (start_i && length_i != 0) begin
          to_stream <= folds_i;
          length    <= length_i;
        end
      end else begin
        if (begin_stream) begin
          to_stream   <= to_stream - 1;
          stream_left <= length - 1;
          gap_left    <= Gap;
        end else begin
          if (streaming) stream_left <= stream_left - 1;
          if (gap_left != 0) gap_left <= gap_left - 1;
        end
        if (stream && last) leaving <= Way;
        else if (leaving != 0) leaving <= leaving - 1;
      end
    end
  end

  // --- the array ------------------------------------------------------------------------------------------------------------

  for (genvar r = 0; r < Rows; r = r + 1) begin : g_row
    logic             valid, first, final_;
    logic [Width-1:0] activation;

    delay_line #(.Width(Width + 3), .Depth(r)) u_skew (
      .clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable),
      .data_i({stream, begin_stream, last, activations_i[r*Width +: Width]}), .data_o({valid, first, final_, activation})
    );

    for (genvar c = 0; c < Columns; c = c + 1) begin : g_column
      logic             valid_in, first_in, last_in, valid_out, first_out, last_out, done, shift;
      logic [Width-1:0] activation_in, activation_out, weight_in, weight_out;
      logic [31:0]      drain_in, drain_out;

      if (c == 0) begin : g_edge
        assign valid_in      = valid;
        assign first_in      = first;
        assign last_in       = final_;
        assign activation_in = activation;
      end else begin : g_inner
        assign valid_in      = g_row[r].g_column[c-1].valid_out;
        assign first_in      = g_row[r].g_column[c-1].first_out;
        assign last_in       = g_row[r].g_column[c-1].last_out;
        assign activation_in = g_row[r].g_column[c-1].activation_out;
      end

      if (r == 0) begin : g_top
        delay_line #(.Width(Width), .Depth(c)) u_skew (
          .clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable), .data_i(weights_i[c*Width +: Width]), .data_o(weight_in)
        );
        assign drain_in = '0;
        assign shift    = 1'b0;
      end else begin : g_below
        assign weight_in = g_row[r-1].g_column[c].weight_out;
        assign drain_in  = g_row[r-1].g_column[c].drain_out;
        // Row r passes on the results of the r rows above it, then keeps the next fold's until the bottom row has its own.
        assign shift     = g_drain[c].shifting && g_drain[c].shifts < CountBits'(r);
      end

      os_element #(
        .Float(Float), .Saturate(Saturate), .ExponentBits(ExponentBits), .MantissaBits(MantissaBits), .HasInf(HasInf)
      ) u_element (
        .clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable),
        .valid_i(valid_in), .first_i(first_in), .last_i(last_in), .activation_i(activation_in),
        .valid_o(valid_out), .first_o(first_out), .last_o(last_out), .activation_o(activation_out),
        .weight_i(weight_in), .weight_o(weight_out),
        .done_o(done), .shift_i(shift), .drain_i(drain_in), .drain_o(drain_out)
      );

      // The array ends here.
      logic unused;
      assign unused = ^{valid_out, first_out, last_out, activation_out, weight_out, done};
    end
  end

  // --- results move down a column from the cycle after its bottom row has its own -----------------------------------------------

  for (genvar c = 0; c < Columns; c = c + 1) begin : g_drain
    logic                 shifting, shown;
    logic [CountBits-1:0] shifts;
    logic                 bottom_done, unused;
    logic [31:0]          sum;

    assign unused      = shown; // of all columns but the last
    assign bottom_done = g_row[Rows-1].g_column[c].done;

    always_ff @(posedge clk_i) begin
      if (!rst_ni) begin
        shifting <= 1'b0;
        shown    <= 1'b0;
        shifts   <= '0;
      end else if (enable) begin
        shown <= bottom_done || (shifting && shifts != CountBits'(Rows - 1));
        if (bottom_done) begin
          shifting <= 1'b1;
          shifts   <= '0;
        end else if (shifting) begin
          if (shifts == CountBits'(Rows - 1)) shifting <= 1'b0;
          else shifts <= shifts + 1;
        end
      end
    end

    delay_line #(.Width(32), .Depth(Columns - 1 - c)) u_align (
      .clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable), .data_i(g_row[Rows-1].g_column[c].drain_out), .data_o(sum)
    );
    assign sums_o[c*32 +: 32] = valid_o ? sum : '0;
  end

  assign valid_o = g_drain[Columns-1].shown;
endmodule
