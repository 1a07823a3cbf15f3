// FP32 → a smaller float, rounded once: to nearest even, toward zero or stochastically.
//
// A word is taken in every cycle with valid_i; its code shows in the next one, beside valid_o, and stays until another comes.
//
// Stochastic rounding adds RandomBits random bits to as many of the first discarded ones and goes away from zero where they carry.
// The random bits are the lowest ones of a Galois LFSR, x^32 + x^22 + x^2 + x + 1, that shifts to the right. Each word rounded
// stochastically reads the state and then moves it on by Steps; no other word does. Neighbouring states share all bits but one,
// so that words are independent of each other only where Steps is at least RandomBits.
//
// NaN keeps its sign. Where a format has none, NaN becomes a zero of the other sign, as in ml_dtypes.
module fp_convert #(
  parameter int          ExponentBits = 8,
  parameter int          MantissaBits = 7,  // 1 to 22
  parameter int          HasInf       = 1,  // 0: no Inf, and NaN is the largest code only
  parameter int          HasNan       = 1,  // 0: no Inf and no NaN
  parameter int          Saturate     = 0,  // 1: what lies beyond the largest number becomes it, Inf too; 0: Inf, else NaN
  parameter int          RandomBits   = 16,
  parameter int          Steps        = 1,
  parameter logic [31:0] Seed         = 32'd1 // state after reset, and where a seed of 0 is loaded
) (
  input  logic                               clk_i,
  input  logic                               rst_ni,
  input  logic                               load_i, // the state becomes the seed after this cycle's word
  input  logic [31:0]                        seed_i,
  input  logic                               valid_i,
  input  logic [1:0]                         mode_i, // 0: nearest even, 1: toward zero, 2 and 3: stochastic
  input  logic [31:0]                        x_i,
  output logic                               valid_o,
  output logic [ExponentBits+MantissaBits:0] code_o
);
  localparam int Discarded = 23 - MantissaBits;                                 // bits of a normal number
  localparam int Fraction  = Discarded > RandomBits ? Discarded : RandomBits;   // of them and zeros
  localparam int Window    = MantissaBits + 1 + Fraction;
  localparam int Levels    = $clog2(Window);
  localparam int CodeBits  = ExponentBits + MantissaBits;                       // without the sign
  localparam int WideBits  = MantissaBits + 9;
  // FP32's exponent field of the smallest normal number.
  localparam int Smallest  = 128 - ((1 << (ExponentBits - 1)) - 1);

  localparam logic [CodeBits-1:0] Infinity = {{ExponentBits{1'b1}}, {MantissaBits{1'b0}}};
  localparam logic [CodeBits-1:0] Largest  = HasInf != 0 ? Infinity - CodeBits'(1) : {CodeBits{1'b1}} - CodeBits'(HasNan != 0);
  localparam logic [CodeBits-1:0] Nan      = HasInf != 0 ? Infinity | (CodeBits'(1) << (MantissaBits - 1)) : {CodeBits{1'b1}};
  localparam logic [CodeBits-1:0] Beyond   = Saturate != 0 || HasNan == 0 ? Largest : HasInf != 0 ? Infinity : Nan;

  localparam logic [31:0] Feedback = 32'h8020_0003;

  // --- random bits --------------------------------------------------------------------------------------------------------
  logic [31:0] state, moved;

  always_comb begin
    moved = state;
    for (int step = 0; step < Steps; step++) begin
      moved = (moved >> 1) ^ (moved[0] ? Feedback : 32'd0);
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) state <= Seed;
    else if (load_i) state <= seed_i == 32'd0 ? Seed : seed_i;
    else if (valid_i && mode_i[1]) state <= moved;
  end

  // --- the significand, shifted right below the smallest normal number ----------------------------------------------------
  logic [8:0]        field, lacking;
  logic [Window-1:0] window;
  logic              sticky;

  assign field   = 9'(x_i[30:23]) + 9'(x_i[30:23] == 8'd0);
  assign lacking = field < 9'(Smallest) ? 9'(Smallest) - field : 9'd0;

  always_comb begin
    window = {x_i[30:23] != 8'd0, x_i[22:0], {(Fraction - Discarded){1'b0}}};
    sticky = 1'b0;
    if (|(lacking >> Levels)) begin
      sticky = |window;
      window = '0;
    end
    for (int level = 0; level < Levels; level++) begin
      if (lacking[level]) begin
        sticky = sticky || |(window & ((Window'(1) << (1 << level)) - Window'(1)));
        window = window >> (1 << level);
      end
    end
  end

  // --- rounding -------------------------------------------------------------------------------------------------------------
  logic                  half, rest, carry, up;
  logic [Fraction:0]     padded; // with a zero below, so that there is a rest
  logic [RandomBits:0]   total;
  logic [WideBits-1:0]   wide;

  assign padded = {window[Fraction-1:0], 1'b0};
  assign half   = padded[Fraction];
  assign rest   = sticky || |padded[Fraction-1:0];
  assign total  = {1'b0, window[Fraction-1-:RandomBits]} + {1'b0, state[RandomBits-1:0]};
  assign carry  = total[RandomBits];
  assign up     = mode_i[1] ? carry : !mode_i[0] && half && (rest || window[Fraction]);
  // The leading 1 counts as one more in the exponent, and so does a carry.
  assign wide   = (field > 9'(Smallest) ? WideBits'(field - 9'(Smallest)) << MantissaBits : '0)
                + WideBits'(window[Window-1:Fraction]) + WideBits'(up);

  // --- what is no number, and what lies beyond ----------------------------------------------------------------------------
  logic                is_nan, is_inf, flipped;
  logic [CodeBits-1:0] magnitude;

  assign is_inf  = x_i[30:0] == 31'h7F80_0000;
  assign is_nan  = x_i[30:0] > 31'h7F80_0000;
  assign flipped = is_nan && HasNan == 0;

  always_comb begin
    if (is_nan) magnitude = HasNan != 0 ? Nan : '0;
    else if (is_inf) magnitude = Beyond;
    else if (wide > WideBits'(Largest)) magnitude = mode_i == 2'd1 ? Largest : Beyond;
    else magnitude = wide[CodeBits-1:0];
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      valid_o <= 1'b0;
      code_o  <= '0;
    end else begin
      valid_o <= valid_i;
      if (valid_i) code_o <= {x_i[31] ^ flipped, magnitude};
    end
  end
endmodule
