// Parts of tensor processing engines: what they are priced with. tensor_parts.py synthesises them for their area and switching
// energy; test_tpe_parts.py holds their netlists against numpy. They are no units of the library.

// 8 × 8 → 16 bits, two's complement.
module part_multiplier (
  input  logic [7:0]  a_i,
  input  logic [7:0]  b_i,
  output logic [15:0] product_o
);
  assign product_o = 16'($signed(a_i) * $signed(b_i));
endmodule

// The same plus 2^15, as two numbers whose carries nothing propagates (Baugh and Wooley, IEEE Trans. Computers C-22(12), 1973).
module part_half_multiplier (
  input  logic [7:0]  a_i,
  input  logic [7:0]  b_i,
  output logic [15:0] sum_o,
  output logic [15:0] carry_o
);
  function automatic logic [31:0] halves(input logic [7:0] a, input logic [7:0] b);
    logic [15:0] sum, carry, row, next;
    sum   = 16'h0100;
    carry = '0;
    for (int r = 0; r < 8; r++) begin
      row = r == 7 ? {8'h00, a[7] & b[7], ~(a[6:0] & {7{b[7]}})} << 7 : {8'h00, ~(a[7] & b[r]), a[6:0] & {7{b[r]}}} << r;
      next  = {(sum & carry) | (sum & row) | (carry & row), 1'b0};
      sum   = sum ^ carry ^ row;
      carry = next;
    end
    halves = {sum, carry};
  endfunction
  assign {sum_o, carry_o} = halves(a_i, b_i);
endmodule

// Two numbers, one sum, the carry propagated.
module part_adder #(parameter int Width = 32) (
  input  logic [Width-1:0] a_i,
  input  logic [Width-1:0] b_i,
  output logic [Width-1:0] sum_o
);
  assign sum_o = a_i + b_i;
endmodule

// Three numbers in, two of the same sum out: no carry propagates.
module part_compressor #(parameter int Width = 32) (
  input  logic [Width-1:0] a_i,
  input  logic [Width-1:0] b_i,
  input  logic [Width-1:0] c_i,
  output logic [Width-1:0] sum_o,
  output logic [Width-1:0] carry_o
);
  assign sum_o   = a_i ^ b_i ^ c_i;
  assign carry_o = {(a_i & b_i) | (a_i & c_i) | (b_i & c_i), 1'b0};
endmodule

// A register with an enable.
module part_register #(parameter int Width = 32) (
  input  logic             clk_i,
  input  logic             enable_i,
  input  logic [Width-1:0] data_i,
  output logic [Width-1:0] data_o
);
  always_ff @(posedge clk_i) if (enable_i) data_o <= data_i;
endmodule

// The sum so far, or zero where a new one begins.
module part_clear #(parameter int Width = 32) (
  input  logic             clear_i,
  input  logic [Width-1:0] data_i,
  output logic [Width-1:0] data_o
);
  assign data_o = clear_i ? '0 : data_i;
endmodule

// One of two numbers: the own sum, or the neighbour's on its way out.
module part_select #(parameter int Width = 32) (
  input  logic             select_i,
  input  logic [Width-1:0] a_i,
  input  logic [Width-1:0] b_i,
  output logic [Width-1:0] data_o
);
  assign data_o = select_i ? b_i : a_i;
endmodule

// An operand times a digit, {negative, two, one}: a number in ones' complement, and the 1 that is missing where it is negative.
module part_digit_product #(
  parameter bit Twos = 1'b1 // digits of ±2, as radix-4 Booth has them
) (
  input  logic [7:0] a_i,
  input  logic [2:0] digit_i,
  output logic [9:0] product_o,
  output logic       carry_o
);
  logic [9:0] once, part;
  assign once      = 10'($signed(a_i));
  assign part      = digit_i[0] ? once : Twos && digit_i[1] ? once << 1 : '0;
  assign product_o = part ^ {10{digit_i[2]}};
  assign carry_o   = digit_i[2];
endmodule

// A number at one of Places weights, Steps bits apart, sign-extended to 32 bits.
module part_shifter #(
  parameter int Width  = 10,
  parameter int Places = 4,
  parameter int Steps  = 2
) (
  input  logic [Width-1:0]          data_i,
  input  logic [$clog2(Places)-1:0] place_i,
  output logic [31:0]               data_o
);
  assign data_o = 32'($signed(data_i)) << (Steps * 32'(place_i));
endmodule

// Takes Lanes operands and gives their digits that are not zero, one weight a cycle, lowest first; a weight is skipped where the
// digits of all lanes are zero. Encoding: 0 radix-4 Booth, 1 non-adjacent form, 2 sign and magnitude.
module part_digit_source #(
  parameter int Lanes    = 1,
  parameter int Encoding = 0,
  parameter int Places   = Encoding == 0 ? 4 : 8
) (
  input  logic                      clk_i,
  input  logic                      rst_ni,
  input  logic                      valid_i,
  output logic                      ready_o,
  input  logic [Lanes*8-1:0]        b_i,
  output logic                      valid_o,
  output logic [Lanes*3-1:0]        digit_o,
  output logic [$clog2(Places)-1:0] place_o
);
  logic                      busy;
  logic [Lanes*8-1:0]        b;
  logic [Places-1:0]         pending, chosen, left;
  logic [$clog2(Places)-1:0] place;

  // {negative, two, one} of every digit of an operand.
  function automatic logic [Places*3-1:0] recoded(input logic [7:0] x);
    logic [8:0] doubled, half;
    logic [9:0] triple;
    logic [7:0] size;
    logic [2:0] window;
    doubled = {x, 1'b0};
    triple  = {{2{x[7]}}, x} + {x[7], x, 1'b0};
    half    = {x[7], x[7], x[7:1]};
    size    = x[7] ? -x : x;
    for (int p = 0; p < Places; p++) begin
      if (Encoding == 0) begin
        window = doubled[2*p +: 3];
        recoded[3*p +: 3] = {window[2] & ~(&window), window == 3'b011 || window == 3'b100, window[1] ^ window[0]};
      end else if (Encoding == 1) begin
        recoded[3*p +: 3] = {half[p] & ~triple[p + 1], 1'b0, half[p] ^ triple[p + 1]};
      end else begin
        recoded[3*p +: 3] = {x[7] & size[p], 1'b0, size[p]};
      end
    end
  endfunction

  function automatic logic [Places-1:0] nonzero(input logic [Lanes*8-1:0] operands);
    logic [Places*3-1:0] one;
    nonzero = '0;
    for (int l = 0; l < Lanes; l++) begin
      one = recoded(operands[8*l +: 8]);
      for (int p = 0; p < Places; p++) nonzero[p] = nonzero[p] | (|one[3*p +: 3]);
    end
  endfunction

  function automatic logic [Lanes*3-1:0] chosen_digits(input logic [Lanes*8-1:0] operands, input logic [Places-1:0] at);
    logic [Places*3-1:0] one;
    chosen_digits = '0;
    for (int l = 0; l < Lanes; l++) begin
      one = recoded(operands[8*l +: 8]);
      for (int p = 0; p < Places; p++) if (at[p]) chosen_digits[3*l +: 3] = chosen_digits[3*l +: 3] | one[3*p +: 3];
    end
  endfunction

  assign chosen  = pending & (~pending + 1'b1);
  assign left    = pending & ~chosen;
  assign ready_o = !busy || left == '0;
  always_comb begin
    place = '0;
    for (int p = 0; p < Places; p++) if (chosen[p]) place = place | ($clog2(Places))'(p);
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      busy    <= 1'b0;
      valid_o <= 1'b0;
    end else begin
      valid_o <= busy;
      if (ready_o) busy <= valid_i;
    end
    if (ready_o) begin
      b       <= b_i;
      pending <= nonzero(b_i);
    end else begin
      pending <= left;
    end
    digit_o <= chosen_digits(b, chosen);
    place_o <= place;
  end
endmodule
