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

  // --- products -----------------------------------------------------------------------------------------------------------
  logic [K-1:0]               sign, zero, is_nan, is_inf;
  logic [K-1:0][Places-1:0]   significand /*verilator split_var*/;
  logic [K-1:0][10:0]         exponent    /*verilator split_var*/; // as FP32's field, which may be negative

  for (genvar k = 0; k < K; k++) begin : g_product
    logic [ExponentBits-1:0] a_field, b_field;
    logic [MantissaBits-1:0] a_fraction, b_fraction;
    logic                    a_zero, b_zero, a_top, b_top, a_inf, b_inf;

    assign {a_field, a_fraction} = a_i[k*Bits+:Bits-1];
    assign {b_field, b_fraction} = b_i[k*Bits+:Bits-1];
    assign a_zero    = a_i[k*Bits+:Bits-1] == '0;
    assign b_zero    = b_i[k*Bits+:Bits-1] == '0;
    assign a_top     = &a_field && (HasInf != 0 || &a_fraction);
    assign b_top     = &b_field && (HasInf != 0 || &b_fraction);
    assign a_inf     = HasInf != 0 && a_top && a_fraction == '0;
    assign b_inf     = HasInf != 0 && b_top && b_fraction == '0;
    assign sign[k]   = a_i[k*Bits+Bits-1] ^ b_i[k*Bits+Bits-1];
    assign is_nan[k] = (a_top && !a_inf) || (b_top && !b_inf) || (a_inf && b_zero) || (b_inf && a_zero);
    assign is_inf[k] = a_inf || b_inf;
    assign zero[k]   = a_zero || b_zero;

    assign significand[k] = Places'({|a_field, a_fraction}) * Places'({|b_field, b_fraction});
    assign exponent[k] = 11'(a_field) + 11'(!(|a_field)) + 11'(b_field) + 11'(!(|b_field)) + 11'(Offset);
  end

  // --- the largest exponent, as FP32's field; that of c is at least 1 ------------------------------------------------------
  logic signed [10:0] c_exponent, largest;

  assign c_exponent = 11'(c_i[30:23]) + 11'(c_i[30:23] == 8'd0);

  always_comb begin
    largest = c_exponent;
    for (int k = 0; k < K; k++) begin
      if (!zero[k] && $signed(exponent[k]) > largest) largest = exponent[k];
    end
  end

  // --- alignment ----------------------------------------------------------------------------------------------------------
  logic [K-1:0][Total-1:0] aligned /*verilator split_var*/; // signed
  logic [FractionBits:0] c_whole, c_aligned;
  logic [10:0]           c_distance;

  for (genvar k = 0; k < K; k++) begin : g_aligned
    logic [Product-1:0] whole, cut;
    logic [10:0]        distance;

    assign whole    = Product'(significand[k] >> Fewer) << More;
    assign distance = largest - $signed(exponent[k]);
    assign cut      = zero[k] ? '0 : whole >> distance;

    assign aligned[k] = sign[k] ? -Total'(cut) : Total'(cut);
  end

  if (FractionBits >= 23) begin : g_c_wide
    assign c_whole = {c_i[30:23] != 8'd0, c_i[22:0], {(FractionBits - 23){1'b0}}};
  end else begin : g_c_narrow
    assign c_whole = {c_i[30:23] != 8'd0, c_i[22-:FractionBits]};
  end
  assign c_distance = largest - c_exponent;
  assign c_aligned  = c_whole >> c_distance;

  // --- sum ----------------------------------------------------------------------------------------------------------------
  logic [Total-1:0] total, magnitude;

  always_comb begin
    total = c_i[31] ? -Total'(c_aligned) : Total'(c_aligned);
    for (int k = 0; k < K; k++) total = total + aligned[k];
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
  logic        c_nan, c_inf, plus_inf, minus_inf;
  logic [22:0] mantissa;
  logic [31:0] result;

  assign c_nan     = c_i[30:0] > 31'h7F80_0000;
  assign c_inf     = c_i[30:0] == 31'h7F80_0000;
  assign plus_inf  = |(is_inf & ~sign) || (c_inf && !c_i[31]);
  assign minus_inf = |(is_inf & sign) || (c_inf && c_i[31]);

  if (Total - 1 >= OutputMantissaBits) begin : g_mantissa_cut
    assign mantissa = {normal[Total-2-:OutputMantissaBits], {(23 - OutputMantissaBits){1'b0}}};
  end else begin : g_mantissa_whole
    assign mantissa = {normal[Total-2:0], {(24 - Total){1'b0}}};
  end

  always_comb begin
    if (c_nan || |is_nan || (plus_inf && minus_inf)) result = Nan;
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
