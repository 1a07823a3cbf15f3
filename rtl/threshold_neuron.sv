// Programmable threshold-logic cell of a binary neural network: every operation is whether a weighted sum of bits reaches a
// threshold, and operation_i chooses which.
//
//   0 neuron    y = [Σ literals ≥ threshold_i]
//   1 add       a + b, lowest bit first: carry' = [a + b + carry ≥ 2], y = [a + b + carry + 2·(not carry') ≥ 3]
//   2 compare   whether a > b, lowest bit first: y = [a + (not b) + state ≥ 2]
//   3 max-pool  whether any bit of a window was 1: y = [Σ literals + state ≥ 1]
//
// A literal is the input where its weight is 1 and its inverse where it is 0: the product of two numbers ±1. The operands a and b
// are literals 0 and 1. The state (the carry, or the result so far) begins with first_i: in an addition and a comparison as
// literal 2, a carry that comes in (1 makes the comparison a ≥ b), and as 0 in a max-pool. Literals that a cell lacks are 0. A
// neuron leaves the state alone.
module threshold_neuron #(
  parameter  int Inputs        = 10,
  localparam int ThresholdBits = $clog2(Inputs + 2) // 0 is always reached, Inputs + 1 never
) (
  input  logic                     clk_i,
  input  logic                     rst_ni,
  input  logic                     enable_i,    // low: y_o and state_o stay
  input  logic [1:0]               operation_i,
  input  logic                     first_i,     // of a word or window
  input  logic [Inputs-1:0]        x_i,
  input  logic [Inputs-1:0]        w_i,
  input  logic [ThresholdBits-1:0] threshold_i,
  output logic                     valid_o,     // enable_i of the cycle before
  output logic                     y_o,
  output logic                     state_o
);
  localparam int CountBits = $clog2(Inputs + 5);

  localparam logic [1:0] Neuron  = 2'd0;
  localparam logic [1:0] Add     = 2'd1;
  localparam logic [1:0] Compare = 2'd2; // 3 is max-pool

  logic [Inputs+1:0]    literal;
  logic                 serial, first, second, state, carry, reached;
  logic [CountBits-1:0] threshold;

  function automatic logic [CountBits-1:0] ones(input logic [Inputs+1:0] bits);
    ones = '0;
    for (int i = 0; i < Inputs + 2; i++) ones = ones + CountBits'(bits[i]);
  endfunction

  assign literal = {2'b00, x_i ~^ w_i};
  assign serial  = operation_i == Add || operation_i == Compare;
  assign first   = literal[0];
  assign second  = literal[1] ^ (operation_i == Compare);
  // A word begins with literal 2, and a window may: it is one of its bits.
  assign state   = operation_i != Neuron && (first_i ? literal[2] : state_o);
  assign carry   = (first & second) | (first & state) | (second & state);

  assign threshold = operation_i == Neuron  ? CountBits'(threshold_i) :
                     operation_i == Add     ? CountBits'(3) :
                     operation_i == Compare ? CountBits'(2) : CountBits'(1);
  assign reached   = ones({literal[Inputs+1:2] & {Inputs{!serial}}, second, first}) + CountBits'(state)
                     + (operation_i == Add && !carry ? CountBits'(2) : CountBits'(0)) >= threshold;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_o <= 1'b0;
      y_o     <= 1'b0;
      state_o <= 1'b0;
    end else begin
      valid_o <= enable_i;
      if (enable_i) begin
        y_o <= reached;
        if (operation_i == Add)          state_o <= carry;
        else if (operation_i != Neuron)  state_o <= reached;
      end
    end
  end
endmodule
