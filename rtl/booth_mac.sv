// Bit-serial multiply-accumulate: radix-4 Booth digits of b, one non-zero digit of each lane a cycle, zero digits skipped.
//
// Each lane adds a × b to a sum of its own, modulo 2^AccumulatorBits. The lanes of a group run in lockstep: they take their
// operands together, and the next ones only when the lane with the most non-zero digits is done. With SharedWeight the loop over
// the bit weights is outside that over the lanes: all lanes are at the same digit, one shift serves them all, and a digit is
// skipped only where it is zero in every lane.
//
// A group of products takes as many cycles as it has digits to add, and one if there are none. Its sums show, with valid_o, in
// the cycle after the last of them, while the first digits of the next products are added; ready_i low then stops the lanes.
// ready_i reaches ready_o through gates.
module booth_mac #(
  parameter int Bits            = 8,  // of an operand, even
  parameter int Lanes           = 1,
  parameter int AccumulatorBits = 32, // at least 2 × Bits
  parameter bit SharedWeight    = 1'b0
) (
  input  logic                             clk_i,
  input  logic                             rst_ni,

  input  logic                             valid_i,
  output logic                             ready_o,
  input  logic                             accumulate_i, // low: the products begin new sums
  input  logic [Lanes*Bits-1:0]            a_i,
  input  logic [Lanes*Bits-1:0]            b_i,

  output logic                             valid_o,
  input  logic                             ready_i,
  output logic [Lanes*AccumulatorBits-1:0] sum_o,        // between results: what is added so far
  output logic [Lanes-1:0]                 active_o      // lanes that add a digit in this cycle
);
  localparam int Digits   = Bits / 2;
  localparam int Counters = SharedWeight ? 1 : Lanes; // that know which digits are left

  logic                       busy_q, clear_q, valid_q;
  logic [Lanes*Bits-1:0]      a_q, b_q;
  logic [Lanes*Digits-1:0]    nonzero;         // digits of b_i
  logic [Counters*Digits-1:0] pending_q, found, chosen, left;
  logic                       step, last, accept;

  assign step    = busy_q && (!valid_q || ready_i);
  assign last    = left == '0;
  assign ready_o = !busy_q || (step && last);
  assign accept  = valid_i && ready_o;
  assign valid_o = valid_q;

  for (genvar c = 0; c < Counters; c++) begin : g_counter
    assign chosen[c*Digits +: Digits] = pending_q[c*Digits +: Digits] & (~pending_q[c*Digits +: Digits] + 1'b1); // the lowest
  end
  assign left = pending_q & ~chosen;

  if (SharedWeight) begin : g_shared
    for (genvar d = 0; d < Digits; d++) begin : g_digit
      logic [Lanes-1:0] lanes;
      for (genvar l = 0; l < Lanes; l++) begin : g_lane
        assign lanes[l] = nonzero[l*Digits + d];
      end
      assign found[d] = |lanes;
    end
  end else begin : g_own
    assign found = nonzero;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      busy_q    <= 1'b0;
      clear_q   <= 1'b0;
      valid_q   <= 1'b0;
      pending_q <= '0;
      a_q       <= '0;
      b_q       <= '0;
    end else begin
      if (accept) begin
        busy_q    <= 1'b1;
        clear_q   <= !accumulate_i;
        pending_q <= found;
        a_q       <= a_i;
        b_q       <= b_i;
      end else if (step) begin
        busy_q    <= !last;
        clear_q   <= 1'b0;
        pending_q <= left;
      end
      if (step && last) valid_q <= 1'b1;
      else if (ready_i) valid_q <= 1'b0;
    end
  end

  for (genvar l = 0; l < Lanes; l++) begin : g_lane
    logic [Bits:0]              arriving, recoded; // with the zero below the lowest bit
    logic [2:0]                 window;            // bits 2d + 1, 2d and 2d − 1 of b at the chosen digit d
    logic [2*Bits-1:0]          multiple, shifted, partial;
    logic [AccumulatorBits-1:0] sum_q, base;

    assign arriving = {b_i[l*Bits +: Bits], 1'b0};
    assign recoded  = {b_q[l*Bits +: Bits], 1'b0};
    for (genvar d = 0; d < Digits; d++) begin : g_digit
      assign nonzero[l*Digits + d] = arriving[2*d +: 3] != 3'b000 && arriving[2*d +: 3] != 3'b111;
    end

    assign multiple = {{Bits{a_q[l*Bits + Bits-1]}}, a_q[l*Bits +: Bits]};
    always_comb begin
      window  = 3'b000;
      shifted = '0;
      for (int d = 0; d < Digits; d++) begin
        if (chosen[(SharedWeight ? 0 : l)*Digits + d]) begin
          window  = recoded[2*d +: 3];
          shifted = multiple << (2*d);
        end
      end
      case (window)
        3'b001, 3'b010: partial = shifted;
        3'b011:         partial = shifted << 1;
        3'b100:         partial = -(shifted << 1);
        3'b101, 3'b110: partial = -shifted;
        default:        partial = '0;
      endcase
    end

    assign base        = clear_q ? '0 : sum_q;
    assign active_o[l] = step && window != 3'b000 && window != 3'b111;
    always_ff @(posedge clk_i) begin
      if (!rst_ni)   sum_q <= '0;
      else if (step) sum_q <= base + {{(AccumulatorBits - 2*Bits){partial[2*Bits-1]}}, partial};
    end
    assign sum_o[l*AccumulatorBits +: AccumulatorBits] = sum_q;
  end
endmodule
