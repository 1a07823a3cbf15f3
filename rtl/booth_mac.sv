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

  logic                             busy_q, clear_q, valid_q;
  logic [Lanes*Bits-1:0]            a_q, b_q;
  logic [Lanes*AccumulatorBits-1:0] sum_q;
  logic [Counters*Digits-1:0]       pending_q, chosen, left;
  logic                             step, last, accept;

  // Functions and single vectors, where parts of a vector would be driven one by one: simulators are slow at those.

  // Bits 2d + 1, 2d and 2d − 1 of an operand for the digit d that is chosen; 0 if none is.
  function automatic logic [2:0] window_at(input logic [Bits-1:0] b, input logic [Digits-1:0] place);
    logic [Bits:0] doubled;
    doubled   = {b, 1'b0};
    window_at = 3'b000;
    for (int d = 0; d < Digits; d++) if (place[d]) window_at = window_at | doubled[2*d +: 3];
  endfunction

  function automatic logic [2*Bits-1:0] partial_product(
    input logic [Bits-1:0] a, input logic [Bits-1:0] b, input logic [Digits-1:0] place
  );
    logic [2*Bits-1:0] shifted;
    shifted = '0;
    for (int d = 0; d < Digits; d++) if (place[d]) shifted = shifted | ({{Bits{a[Bits-1]}}, a} << (2*d));
    case (window_at(b, place))
      3'b001, 3'b010: partial_product = shifted;
      3'b011:         partial_product = shifted << 1;
      3'b100:         partial_product = -(shifted << 1);
      3'b101, 3'b110: partial_product = -shifted;
      default:        partial_product = '0;
    endcase
  endfunction

  // The digits that take a cycle.
  function automatic logic [Counters*Digits-1:0] digits_of(input logic [Lanes*Bits-1:0] b);
    logic [2:0] window;
    digits_of = '0;
    for (int l = 0; l < Lanes; l++) begin
      for (int d = 0; d < Digits; d++) begin
        window = window_at(b[l*Bits +: Bits], Digits'(1) << d);
        if (window != 3'b000 && window != 3'b111) digits_of[(SharedWeight ? 0 : l)*Digits + d] = 1'b1;
      end
    end
  endfunction

  // The lowest digit that is left in each counter.
  function automatic logic [Counters*Digits-1:0] lowest(input logic [Counters*Digits-1:0] pending);
    for (int c = 0; c < Counters; c++) begin
      lowest[c*Digits +: Digits] = pending[c*Digits +: Digits] & (~pending[c*Digits +: Digits] + 1'b1);
    end
  endfunction

  function automatic logic [Lanes-1:0] adding(input logic [Lanes*Bits-1:0] b, input logic [Counters*Digits-1:0] place);
    logic [2:0] window;
    for (int l = 0; l < Lanes; l++) begin
      window    = window_at(b[l*Bits +: Bits], place[(SharedWeight ? 0 : l)*Digits +: Digits]);
      adding[l] = window != 3'b000 && window != 3'b111;
    end
  endfunction

  assign chosen   = lowest(pending_q);
  assign left     = pending_q & ~chosen;
  assign step     = busy_q && (!valid_q || ready_i);
  assign last     = left == '0;
  assign ready_o  = !busy_q || (step && last);
  assign accept   = valid_i && ready_o;
  assign valid_o  = valid_q;
  assign sum_o    = sum_q;
  assign active_o = adding(b_q, chosen) & {Lanes{step}};

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      busy_q    <= 1'b0;
      clear_q   <= 1'b0;
      valid_q   <= 1'b0;
      pending_q <= '0;
      a_q       <= '0;
      b_q       <= '0;
      sum_q     <= '0;
    end else begin
      if (accept) begin
        busy_q    <= 1'b1;
        clear_q   <= !accumulate_i;
        pending_q <= digits_of(b_i);
        a_q       <= a_i;
        b_q       <= b_i;
      end else if (step) begin
        busy_q    <= !last;
        clear_q   <= 1'b0;
        pending_q <= left;
      end
      if (step) begin
        for (int l = 0; l < Lanes; l++) begin
          sum_q[l*AccumulatorBits +: AccumulatorBits] <=
            (clear_q ? '0 : sum_q[l*AccumulatorBits +: AccumulatorBits]) +
            AccumulatorBits'($signed(partial_product(
              a_q[l*Bits +: Bits], b_q[l*Bits +: Bits], chosen[(SharedWeight ? 0 : l)*Digits +: Digits])));
        end
      end
      if (step && last) valid_q <= 1'b1;
      else if (ready_i) valid_q <= 1'b0;
    end
  end
endmodule
