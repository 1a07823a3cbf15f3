// Weight-stationary systolic array with its control: C = A·B, k along the rows, n along the columns.
//
// A job is a number of folds. A fold takes Rows rows of weights (first row first) and then length_i vectors of activations; each
// vector gives one vector of sums, Rows + Columns − 1 cycles later. Inputs are skewed and sums aligned inside: a vector enters and
// leaves as a whole. Weights are double-buffered: the next fold's are taken while the present fold streams.
//
// Taking is by request: in a cycle with weight_ready_o (activation_ready_o) the array takes weights_i (activations_i). stall_i
// freezes everything, also what shows on sums_o; back-pressure and operands that are late are both a stall. busy_o is high for as
// many cycles as the job takes, from its first weights to the last sum in its register.
//
// A start is taken in a cycle without stall in which the array is not busy; one of no folds or a length of 0 begins nothing.
module systolic_ws #(
  parameter int Rows         = 4,
  parameter int Columns      = 4,
  parameter int FoldOverlap  = 2, // 0: a fold loads when the one before has left; 1: it loads meanwhile; 2: and streams behind it
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
  output logic                     weight_ready_o,
  input  logic [Columns*Width-1:0] weights_i,
  output logic                     activation_ready_o,
  input  logic [Rows*Width-1:0]    activations_i,
  output logic                     valid_o,
  output logic [Columns*32-1:0]    sums_o
);
  localparam logic [15:0] Way = 16'(Rows + Columns - 2); // cycles from a vector's entry to its last sum, beyond the first
  localparam logic [15:0] LoadRest = 16'(Rows - 1);

  // --- control: when the next fold loads and streams ------------------------------------------------------------------------

  logic [15:0] length, to_load, load_left, stream_left, leaving;
  logic        loaded; // the shadow registers hold a fold's weights, or get them before they are needed
  logic        streaming, begin_stream, begin_load, load, stream, load_end, enable, may_load;

  assign enable       = !stall_i;
  assign streaming    = stream_left != 0;
  assign begin_stream = loaded && !streaming && (FoldOverlap == 2 || leaving == 0);
  assign may_load     = FoldOverlap == 0 ? !loaded && !streaming && leaving == 0 : !loaded || begin_stream;
  assign begin_load   = to_load != 0 && load_left == 0 && may_load;
  assign load         = begin_load || load_left != 0;
  assign stream       = begin_stream || streaming;
  assign load_end     = begin_load ? LoadRest == 0 : load_left == 1;

  assign busy_o             = to_load != 0 || load || loaded || stream || leaving != 0;
  assign weight_ready_o     = load && enable;
  assign activation_ready_o = stream && enable;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      length      <= '0;
      to_load     <= '0;
      load_left   <= '0;
      stream_left <= '0;
      leaving     <= '0;
      loaded      <= 1'b0;
    end else if (enable) begin
      if (!busy_o) begin
        if (start_i && length_i != 0) begin
          to_load <= folds_i;
          length  <= length_i;
        end
      end else begin
        if (begin_load) begin
          to_load   <= to_load - 1;
          load_left <= LoadRest;
        end else if (load_left != 0) begin
          load_left <= load_left - 1;
        end
        if (load && load_end) loaded <= 1'b1;
        else if (begin_stream) loaded <= 1'b0;
        if (begin_stream) stream_left <= length - 1;
        else if (streaming) stream_left <= stream_left - 1;
        if (begin_stream ? length == 1 : stream_left == 1) leaving <= Way;
        else if (leaving != 0) leaving <= leaving - 1;
      end
    end
  end

  // --- the array ------------------------------------------------------------------------------------------------------------

  for (genvar r = 0; r < Rows; r = r + 1) begin : g_row
    logic             valid, first;
    logic [Width-1:0] activation;

    delay_line #(.Width(Width + 2), .Depth(r)) u_skew (
      .clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable),
      .data_i({stream, begin_stream, activations_i[r*Width +: Width]}), .data_o({valid, first, activation})
    );

    for (genvar c = 0; c < Columns; c = c + 1) begin : g_column
      logic             valid_in, first_in, valid_out, first_out;
      logic             weight_valid_in, weight_mark_in, weight_valid_out, weight_mark_out;
      logic [Width-1:0] activation_in, activation_out, weight_in, weight_out;
      logic [31:0]      sum_in, sum_out;

      if (c == 0) begin : g_edge
        assign valid_in      = valid;
        assign first_in      = first;
        assign activation_in = activation;
      end else begin : g_inner
        assign valid_in      = g_row[r].g_column[c-1].valid_out;
        assign first_in      = g_row[r].g_column[c-1].first_out;
        assign activation_in = g_row[r].g_column[c-1].activation_out;
      end

      if (r == 0) begin : g_top
        delay_line #(.Width(Width + 2), .Depth(c)) u_skew (
          .clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable),
          .data_i({load, begin_load, weights_i[c*Width +: Width]}), .data_o({weight_valid_in, weight_mark_in, weight_in})
        );
        assign sum_in = '0;
      end else begin : g_below
        assign weight_valid_in = g_row[r-1].g_column[c].weight_valid_out;
        assign weight_mark_in  = g_row[r-1].g_column[c].weight_mark_out;
        assign weight_in       = g_row[r-1].g_column[c].weight_out;
        assign sum_in          = g_row[r-1].g_column[c].sum_out;
      end

      ws_element #(
        .Float(Float), .Saturate(Saturate), .ExponentBits(ExponentBits), .MantissaBits(MantissaBits), .HasInf(HasInf)
      ) u_element (
        .clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable),
        .valid_i(valid_in), .first_i(first_in), .activation_i(activation_in),
        .valid_o(valid_out), .first_o(first_out), .activation_o(activation_out),
        .weight_valid_i(weight_valid_in), .weight_mark_i(weight_mark_in), .weight_i(weight_in),
        .weight_valid_o(weight_valid_out), .weight_mark_o(weight_mark_out), .weight_o(weight_out),
        .sum_i(sum_in), .sum_o(sum_out)
      );

      // The array ends here.
      logic unused;
      assign unused = ^{valid_out, first_out, activation_out, weight_valid_out, weight_mark_out, weight_out};
    end
  end

  // --- sums leave at the bottom, aligned to those of the last column ----------------------------------------------------------

  assign valid_o = g_row[Rows-1].g_column[Columns-1].valid_out;

  for (genvar c = 0; c < Columns; c = c + 1) begin : g_align
    logic [31:0] sum;

    delay_line #(.Width(32), .Depth(Columns - 1 - c)) u_align (
      .clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable), .data_i(g_row[Rows-1].g_column[c].sum_out), .data_o(sum)
    );
    assign sums_o[c*32 +: 32] = valid_o ? sum : '0;
  end
endmodule
