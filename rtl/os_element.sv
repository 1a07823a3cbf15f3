// Processing element of an output-stationary array.
//
// Activations pass to the right, weights down; the sum stays. In the cycle after the last product (last_i) the drain register
// takes it; there the results move down to the bottom row while the next fold already sums.
module os_element #(
  parameter int Float        = 0,
  parameter int Saturate     = 0,
  parameter int ExponentBits = 8,
  parameter int MantissaBits = 7,
  parameter int HasInf       = 1,
  parameter int Width        = Float != 0 ? 1 + ExponentBits + MantissaBits : 8
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             enable_i,
  input  logic             valid_i,
  input  logic             first_i,
  input  logic             last_i,
  input  logic [Width-1:0] activation_i,
  output logic             valid_o,
  output logic             first_o,
  output logic             last_o,
  output logic [Width-1:0] activation_o,
  input  logic [Width-1:0] weight_i,
  output logic [Width-1:0] weight_o,
  output logic             done_o,       // the drain register takes the sum in this cycle
  input  logic             shift_i,      // the drain register takes that of the row above
  input  logic [31:0]      drain_i,
  output logic [31:0]      drain_o
);
  /*verilator no_inline_module*/ // its code is compiled once, not once for each of hundreds of elements

  logic [31:0] sum;

  // What tells the neighbour to the right tells this element's drain.
  assign done_o = valid_o && last_o;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_o      <= 1'b0;
      first_o      <= 1'b0;
      last_o       <= 1'b0;
      activation_o <= '0;
      weight_o     <= '0;
      drain_o      <= '0;
    end else if (enable_i) begin
      valid_o <= valid_i;
      first_o <= first_i;
      last_o  <= last_i;
      if (valid_i) begin
        activation_o <= activation_i;
        weight_o     <= weight_i;
      end
      if (done_o) drain_o <= sum;
      else if (shift_i) drain_o <= drain_i;
    end
  end

  mac #(
    .Float(Float), .Saturate(Saturate), .ExponentBits(ExponentBits), .MantissaBits(MantissaBits), .HasInf(HasInf)
  ) u_mac (
    .clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable_i && valid_i), .a_i(activation_i), .b_i(weight_i),
    .c_i(first_i ? 32'd0 : sum), .sum_o(sum)
  );
endmodule
