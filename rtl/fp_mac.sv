// Small float × small float + FP32 → FP32, in one cycle: the exact product is added and the sum rounded once, to nearest even.
//
// All numbers are IEEE 754's, subnormal ones included, whether or not the operands' format has Inf (HasInf); every NaN that comes
// out is 0x7FC00000. The BF16 product needs not fit FP32.
//
// Of the product and c, the one whose highest place weighs more stays where it is and the other is shifted right, its last bits
// into a sticky one. Neither needs to be normal for that. Below the lowest place of the product there are as many bits as c has,
// and one: where bits of c are lost, c is less than half of that place, and the sum keeps the 25 bits that rounding needs beside
// the sticky one. Below the lowest place of c there are as many bits as the product has, and one.
module fp_mac #(
  parameter int ExponentBits = 8, // BF16: 8, 7; E5M2: 5, 2; E4M3: 4, 3
  parameter int MantissaBits = 7,
  parameter int HasInf       = 1  // 0: no Inf, and NaN is the largest code only (OCP's E4M3)
) (
  input  logic                                 clk_i,
  input  logic                                 rst_ni,
  input  logic                                 enable_i, // keeps the sum while low
  input  logic [ExponentBits+MantissaBits:0]   a_i,
  input  logic [ExponentBits+MantissaBits:0]   b_i,
  input  logic [31:0]                          c_i,
  output logic [31:0]                          sum_o
);
  localparam int Places = 2 * (MantissaBits + 1); // of a product, two of them before the point
  localparam int Kept   = Places + 25;            // of an aligned operand
  localparam int Sum    = Kept + 2;               // with a carry and the sticky bit
  localparam int Levels = $clog2(Sum);
  // A product's highest place in terms of FP32's exponent field, less the sum of the operands' fields.
  localparam int Offset = 128 - 2 * ((1 << (ExponentBits - 1)) - 1);

  localparam logic [31:0] Nan = 32'h7FC0_0000;

  // --- operands -----------------------------------------------------------------------------------------------------------
  logic [ExponentBits-1:0] a_field, b_field;
  logic [MantissaBits-1:0] a_fraction, b_fraction;
  logic                    a_normal, b_normal, c_normal;
  logic                    a_top, b_top, a_inf, b_inf, c_inf, any_nan;

  assign {a_field, a_fraction} = a_i[ExponentBits+MantissaBits-1:0];
  assign {b_field, b_fraction} = b_i[ExponentBits+MantissaBits-1:0];
  assign a_normal = |a_field;
  assign b_normal = |b_field;
  assign c_normal = |c_i[30:23];
  // Codes that are no numbers.
  assign a_top   = &a_field && (HasInf != 0 || &a_fraction);
  assign b_top   = &b_field && (HasInf != 0 || &b_fraction);
  assign a_inf   = HasInf != 0 && a_top && !(|a_fraction);
  assign b_inf   = HasInf != 0 && b_top && !(|b_fraction);
  assign c_inf   = c_i[30:0] == 31'h7F80_0000;
  assign any_nan = (a_top && !a_inf) || (b_top && !b_inf) || c_i[30:0] > 31'h7F80_0000;

  // --- product ------------------------------------------------------------------------------------------------------------
  logic                     product_sign, product_inf, invalid;
  logic        [Places-1:0] product;
  logic signed [10:0]       product_place, c_place, ahead, place;

  assign product_sign  = a_i[ExponentBits+MantissaBits] ^ b_i[ExponentBits+MantissaBits];
  assign product       = Places'({a_normal, a_fraction}) * Places'({b_normal, b_fraction});
  assign product_inf   = a_inf || b_inf;
  assign invalid       = (a_inf && b_i[ExponentBits+MantissaBits-1:0] == '0) || (b_inf && a_i[ExponentBits+MantissaBits-1:0] == '0)
                       || (product_inf && c_inf && product_sign != c_i[31]);
  // A subnormal number has the exponent of the field's 1.
  assign product_place = 11'(a_field) + 11'(!a_normal) + 11'(b_field) + 11'(!b_normal) + 11'(Offset);
  assign c_place       = 11'(c_i[30:23]) + 11'(!c_normal);

  // --- alignment ----------------------------------------------------------------------------------------------------------
  logic            product_first;
  logic [10:0]     distance;
  logic [Kept-1:0] product_whole, c_whole, first, second;
  logic            sticky;

  assign ahead         = product_place - c_place;
  assign product_first = !ahead[10] && product != '0; // a product of zero has no place
  assign place         = product_first ? product_place : c_place;
  assign product_whole = {product, {(Kept - Places){1'b0}}};
  assign c_whole       = {c_normal, c_i[22:0], {(Kept - 24){1'b0}}};
  assign first         = product_first ? product_whole : c_whole;
  assign distance      = product_first ? ahead : -ahead;

  always_comb begin
    second = product_first ? c_whole : product_whole;
    sticky = 1'b0;
    if (|(distance >> Levels)) begin
      sticky = |second;
      second = '0;
    end
    for (int level = 0; level < Levels; level++) begin
      if (distance[level]) begin
        sticky = sticky || |(second & ((Kept'(1) << (1 << level)) - Kept'(1)));
        second = second >> (1 << level);
      end
    end
  end

  // --- sum ----------------------------------------------------------------------------------------------------------------
  logic           first_sign, sign, differ, below;
  logic [Sum-1:0] difference, magnitude;

  assign first_sign = product_first ? product_sign : c_i[31];
  assign differ     = product_sign != c_i[31];
  assign difference = {1'b0, first, 1'b0} + ({1'b0, second, sticky} ^ {Sum{differ}}) + Sum'(differ);
  assign below      = differ && difference[Sum-1];
  assign magnitude  = below ? -difference : difference;
  // A sum of zeros is negative if both are; one that cancels is positive.
  assign sign       = magnitude == '0 ? product_sign && c_i[31] : first_sign ^ below;

  // --- to the left, as far as FP32's exponents reach ------------------------------------------------------------------------
  logic [Sum-1:0] normal;
  logic [10:0]    field;

  always_comb begin
    normal = magnitude;
    field  = place + 11'd1; // of the carry's place, at least 2
    for (int level = Levels - 1; level >= 0; level--) begin
      if (!(|(normal >> (Sum - (1 << level)))) && field > 11'(1 << level)) begin
        normal = normal << (1 << level);
        field  = field - 11'(1 << level);
      end
    end
    if (!normal[Sum-1]) field = 11'd0;
  end

  // --- rounding -------------------------------------------------------------------------------------------------------------
  logic        up;
  logic [30:0] rounded;
  logic [31:0] result;

  assign up      = normal[Sum-25] && (normal[Sum-24] || |normal[Sum-26:0]);
  assign rounded = {field[7:0], normal[Sum-2:Sum-24]} + 31'(up); // the carry moves on into the exponent, and to Inf

  always_comb begin
    if (any_nan || invalid) result = Nan;
    else if (product_inf) result = {product_sign, 8'hFF, 23'd0};
    else if (c_inf || field >= 11'd255) result = {c_inf ? c_i[31] : sign, 8'hFF, 23'd0};
    else result = {sign, rounded};
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      sum_o <= '0;
    end else if (enable_i) begin
      sum_o <= result;
    end
  end
endmodule
