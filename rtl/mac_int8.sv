// INT8 × INT8 + INT32 → INT32, in one cycle.
//
// The sum wraps modulo 2^32 or, with Saturate, stops at the largest and smallest number, at every addition.
module mac_int8 #(
  parameter bit Saturate = 1'b0
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        enable_i, // keeps the sum while low
  input  logic [7:0]  a_i,
  input  logic [7:0]  b_i,
  input  logic [31:0] c_i,
  output logic [31:0] sum_o
);
  logic signed [15:0] product;
  logic signed [32:0] exact;
  logic               overflow;

  assign product  = $signed(a_i) * $signed(b_i);
  assign exact    = {c_i[31], c_i} + {{17{product[15]}}, product};
  assign overflow = exact[32] != exact[31];

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      sum_o <= '0;
    end else if (enable_i) begin
      sum_o <= Saturate && overflow ? {exact[32], {31{~exact[32]}}} : exact[31:0];
    end
  end
endmodule
