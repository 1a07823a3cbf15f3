// Dot product of K pairs of small floats, plus an FP32 number, as tensor cores do it: not by one addition after the other.
//
// The exact products and c are aligned to the largest exponent among them, each is cut off toward zero at FractionBits bits after
// the point, all are added exactly, and the sum is cut off toward zero to FP32 or, with fewer OutputMantissaBits, to so many bits
// of an FP32 number's mantissa (13 in the FP8 instructions of NVIDIA's Ada and Hopper).
//
// A product's exponent is the sum of its operands' exponent fields, wherever its leading one lies; zeros have none. Subnormal
// numbers count, a sum of zero is positive, what lies beyond the largest number is Inf, and every NaN is 0x7FFFFFFF.
//
// Operands are taken in every cycle with valid_i; their sum shows in the next one, beside valid_o, and stays until another comes.
module fused_dot #(
  parameter int K                  = 4,
  parameter int FractionBits       = 23,
  parameter int ExponentBits       = 5,
  parameter int MantissaBits       = 10,
  parameter int HasInf             = 1,  // 0: no Inf, and NaN is the largest code only (OCP's E4M3)
  parameter int OutputMantissaBits = 23
) (
  input  logic                                         clk_i,
  input  logic                                         rst_ni,
  input  logic                                         valid_i,
  input  logic [K*(ExponentBits+MantissaBits+1)-1:0]   a_i, // pair 0 lowest
  input  logic [K*(ExponentBits+MantissaBits+1)-1:0]   b_i,
  input  logic [31:0]                                  c_i,
  output logic                                         valid_o,
  output logic [31:0]                                  sum_o
);
  localparam int Bits    = ExponentBits + MantissaBits + 1;
  localparam int Places  = 2 * (MantissaBits + 1);      // of a product, two of them before the point
  localparam int Product = FractionBits + 2;            // of an aligned product
  localparam int Total   = Product + $clog2(K + 1) + 1; // of their sum, with a sign
  localparam int Levels  = $clog2(Total);
  // Bits after the point that an aligned product has more, or fewer, than a product.
  localparam int More    = FractionBits > 2 * MantissaBits ? FractionBits - 2 * MantissaBits : 0;
  localparam int Fewer   = FractionBits < 2 * MantissaBits ? 2 * MantissaBits - FractionBits : 0;
  // A product's exponent as FP32's field, less the sum of the operands' fields.
  localparam int Offset  = 127 - 2 * ((1 << (ExponentBits - 1)) - 1);

  localparam logic [31:0] Nan = 32'h7FFF_FFFF;

  // --- one pair: codes without their signs ----------------------------------------------------------------------------------
  function automatic logic [Places-1:0] significand_of(input logic [Bits-2:0] code);
    significand_of = Places'({code[Bits-2:MantissaBits] != '0, code[MantissaBits-1:0]});
  endfunction

  function automatic logic is_inf(input logic [Bits-2:0] code);
    is_inf = HasInf != 0 && &code[Bits-2:MantissaBits] && code[MantissaBits-1:0] == '0;
  endfunction

  function automatic logic is_nan(input logic [Bits-2:0] code);
    is_nan = &code[Bits-2:MantissaBits] && (HasInf != 0 ? |code[MantissaBits-1:0] : &code[MantissaBits-1:0]);
  endfunction

  // A product's exponent as FP32's field, which may be negative. Subnormal operands have that of the smallest normal ones.
  function automatic logic signed [10:0] exponent_of(input logic [ExponentBits-1:0] a, input logic [ExponentBits-1:0] b);
    exponent_of = $signed(11'(a) + 11'(a == '0) + 11'(b) + 11'(b == '0) + 11'(Offset));
  endfunction

  // --- the largest exponent, and what is no number --------------------------------------------------------------------------
  logic signed [10:0] c_exponent, largest;
  logic               any_nan, plus_inf, minus_inf;

  assign c_exponent = $signed(11'(c_i[30:23]) + 11'(c_i[30:23] == 8'd0));

  always_comb begin : find_largest
    logic [Bits-2:0]    a, b;
    logic signed [10:0] exponent;
    logic               negative, infinite;
    largest   = c_exponent;
    any_nan   = c_i[30:0] > 31'h7F80_0000;
    plus_inf  = c_i == 32'h7F80_0000;
    minus_inf = c_i == 32'hFF80_0000;
    /* verilator unroll_disable */
    for (int k = 0; k < K; k++) begin
      a         = a_i[k*Bits+:Bits-1];
      b         = b_i[k*Bits+:Bits-1];
      negative  = a_i[k*Bits+Bits-1] ^ b_i[k*Bits+Bits-1];
      infinite  = is_inf(a) || is_inf(b);
      any_nan   = any_nan || is_nan(a) || is_nan(b) || (infinite && (a == '0 || b == '0));
      plus_inf  = plus_inf || (infinite && !negative);
      minus_inf = minus_inf || (infinite && negative);
      exponent  = exponent_of(a[Bits-2:MantissaBits], b[Bits-2:MantissaBits]);
      if (a != '0 && b != '0 && exponent > largest) largest = exponent;
    end
  end

  // --- aligned to it, cut off and added ---------------------------------------------------------------------------------------
  logic [FractionBits:0] c_whole, c_cut;
  logic [10:0]           c_distance;
  logic [Total-1:0]      total, magnitude;

  if (FractionBits >= 23) begin : g_c_wide
    assign c_whole = {c_i[30:23] != 8'd0, c_i[22:0], {(FractionBits - 23){1'b0}}};
  end else begin : g_c_narrow
    assign c_whole = {c_i[30:23] != 8'd0, c_i[22-:FractionBits]};
  end
  assign c_distance = largest - c_exponent;
  assign c_cut      = c_whole >> c_distance;

  always_comb begin : add
    logic [Bits-2:0]    a, b;
    logic [Places-1:0]  product;
    logic [10:0]        distance;
    logic [Product-1:0] cut;
    total = c_i[31] ? Total'(0) - Total'(c_cut) : Total'(c_cut);
    /* verilator unroll_disable */
    for (int k = 0; k < K; k++) begin
      a        = a_i[k*Bits+:Bits-1];
      b        = b_i[k*Bits+:Bits-1];
      product  = significand_of(a) * significand_of(b); // zero where an operand is, at whatever distance
      distance = largest - exponent_of(a[Bits-2:MantissaBits], b[Bits-2:MantissaBits]);
      cut      = (Product'(product >> Fewer) << More) >> distance;
      total    = (a_i[k*Bits+Bits-1] ^ b_i[k*Bits+Bits-1]) ? total - Total'(cut) : total + Total'(cut);
    end
  end

  assign magnitude = total[Total-1] ? -total : total;

  // --- to the left, as far as FP32's exponents reach ------------------------------------------------------------------------
  logic [Total-1:0] normal;
  logic [10:0]      field;

  always_comb begin
    normal = magnitude;
    field  = largest + 11'(Total - 1 - FractionBits); // of the highest place
    for (int level = Levels - 1; level >= 0; level--) begin
      if (!(|(normal >> (Total - (1 << level)))) && field > 11'(1 << level)) begin
        normal = normal << (1 << level);
        field  = field - 11'(1 << level);
      end
    end
    if (!normal[Total-1]) field = 11'd0;
  end

  // --- result ---------------------------------------------------------------------------------------------------------------
  logic [22:0] mantissa;
  logic [31:0] result;

  if (Total - 1 >= OutputMantissaBits) begin : g_mantissa_cut
    assign mantissa = {normal[Total-2-:OutputMantissaBits], {(23 - OutputMantissaBits){1'b0}}};
  end else begin : g_mantissa_whole
    assign mantissa = {normal[Total-2:0], {(24 - Total){1'b0}}};
  end

  always_comb begin
    if (any_nan || (plus_inf && minus_inf)) result = Nan;
    else if (plus_inf || minus_inf) result = {minus_inf, 8'hFF, 23'd0};
    else if (field >= 11'd255) result = {total[Total-1], 8'hFF, 23'd0};
    else result = {total[Total-1], field[7:0], mantissa};
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_o <= 1'b0;
      sum_o   <= '0;
    end else begin
      valid_o <= valid_i;
      if (valid_i) sum_o <= result;
    end
  end
endmodule
