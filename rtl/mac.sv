// The multiply-accumulate of an array's processing element: integer (mac_int8) or floating point (fp_mac).
module mac #(
  parameter int Float        = 0, // 0: INT8 operands, INT32 sum; 1: small floats, FP32 sum
  // verilator lint_off UNUSEDPARAM
  // Each kind has parameters that mean nothing to the other.
  parameter int Saturate     = 0,
  parameter int ExponentBits = 8,
  parameter int MantissaBits = 7,
  parameter int HasInf       = 1,
  // verilator lint_on UNUSEDPARAM
  parameter int Width        = Float != 0 ? 1 + ExponentBits + MantissaBits : 8
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             enable_i,
  input  logic [Width-1:0] a_i,
  input  logic [Width-1:0] b_i,
  input  logic [31:0]      c_i,
  output logic [31:0]      sum_o
);
  if (Float != 0) begin : g_float
    fp_mac #(
      .ExponentBits(ExponentBits), .MantissaBits(MantissaBits), .HasInf(HasInf)
    ) u_mac (.clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable_i), .a_i(a_i), .b_i(b_i), .c_i(c_i), .sum_o(sum_o));
  end else begin : g_integer
    mac_int8 #(
      .Saturate(Saturate != 0)
    ) u_mac (.clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable_i), .a_i(a_i), .b_i(b_i), .c_i(c_i), .sum_o(sum_o));
  end
endmodule
