// Processing element of a weight-stationary array.
//
// Activations pass to the right, sums down. Weights also come down, one row a cycle, in the order of the rows: the element keeps
// the first one of a load (the marked one) in its shadow register, passes the others on, and marks the first that it passes. So a
// load needs no address, and its wave never overtakes that of the activations: the next load may begin in the cycle in which the
// present fold's first activation enters. That activation (first_i) brings the shadow's weight into use.
module ws_element #(
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
  input  logic [Width-1:0] activation_i,
  output logic             valid_o,
  output logic             first_o,
  output logic [Width-1:0] activation_o,
  input  logic             weight_valid_i,
  input  logic             weight_mark_i,
  input  logic [Width-1:0] weight_i,
  output logic             weight_valid_o,
  output logic             weight_mark_o,
  output logic [Width-1:0] weight_o,
  input  logic [31:0]      sum_i,
  output logic [31:0]      sum_o
);
  /*verilator no_inline_module*/ // its code is compiled once, not once for each of hundreds of elements

  logic [Width-1:0] shadow, active, used;
  logic             kept; // the present load's own weight has come

  assign used = first_i ? shadow : active;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_o        <= 1'b0;
      first_o        <= 1'b0;
      activation_o   <= '0;
      weight_valid_o <= 1'b0;
      weight_mark_o  <= 1'b0;
      weight_o       <= '0;
      shadow         <= '0;
      active         <= '0;
      kept           <= 1'b0;
    end else if (enable_i) begin
      valid_o <= valid_i;
      first_o <= first_i;
      if (valid_i) activation_o <= activation_i;
      if (valid_i && first_i) active <= shadow;
      weight_valid_o <= weight_valid_i && !weight_mark_i;
      if (weight_valid_i && weight_mark_i) begin
        shadow <= weight_i;
        kept   <= 1'b1;
      end else if (weight_valid_i) begin
        weight_o      <= weight_i;
        weight_mark_o <= kept;
        kept          <= 1'b0;
      end
    end
  end

  mac #(
    .Float(Float), .Saturate(Saturate), .ExponentBits(ExponentBits), .MantissaBits(MantissaBits), .HasInf(HasInf)
  ) u_mac (
    .clk_i(clk_i), .rst_ni(rst_ni), .enable_i(enable_i && valid_i), .a_i(activation_i), .b_i(used), .c_i(sum_i), .sum_o(sum_o)
  );
endmodule
