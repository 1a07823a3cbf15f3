// Hsiao's (72,64) code: corrects one wrong bit of a word and detects two.
//
// The encoder gives the check bits of data_i. The decoder takes a word as it was received, its data and its check bits; it shares
// nothing with the encoder, so that a memory can write and read at once. Both are combinational.
//
// The parity-check matrix (bit i of a column is row i): check bit i has the column 1 << i; data bits 0 to 55 have the 56 columns
// of weight 3 in increasing order; data bits 56 to 63 have 8 columns of weight 5, which are 00011111 rotated left by 0, 5, 10, …:
// each next one lies where the rows hold the fewest ones. Every row has 26 ones, and one more for its check bit.
module secded_72_64 (
  input  logic [63:0] data_i,
  output logic [7:0]  check_o,

  input  logic [63:0] received_data_i,
  input  logic [7:0]  received_check_i,
  output logic [63:0] data_o,         // corrected; as received after a double error
  output logic [7:0]  syndrome_o,     // 0 for a code word
  output logic        single_error_o, // one bit was wrong, of the data or of the check bits
  output logic        double_error_o  // two bits were wrong, or more of them in a way that no single one explains
);
  logic [63:0][7:0] column;
  logic [7:0][63:0] row;
  logic [63:0]      flip;

  // The place of the column with rows i > j > k in increasing order is C(i,3) + C(j,2) + C(k,1).
  for (genvar i = 2; i < 8; i++) begin : g_first
    for (genvar j = 1; j < i; j++) begin : g_second
      for (genvar k = 0; k < j; k++) begin : g_third
        assign column[i * (i - 1) * (i - 2) / 6 + j * (j - 1) / 2 + k] = 8'((1 << i) | (1 << j) | (1 << k));
      end
    end
  end
  for (genvar n = 0; n < 8; n++) begin : g_rotation
    assign column[56 + n] = 8'((16'h1f1f << ((5 * n) % 8)) >> 8);
  end

  for (genvar r = 0; r < 8; r++) begin : g_row
    for (genvar d = 0; d < 64; d++) begin : g_bit
      assign row[r][d] = column[d][r];
    end
    assign check_o[r]    = ^(data_i & row[r]);
    assign syndrome_o[r] = ^(received_data_i & row[r]) ^ received_check_i[r];
  end

  for (genvar d = 0; d < 64; d++) begin : g_flip
    assign flip[d] = syndrome_o == column[d];
  end

  // A check bit alone is wrong where the syndrome has a single 1.
  assign single_error_o = (|flip) || (syndrome_o != '0 && (syndrome_o & (syndrome_o - 8'd1)) == '0);
  assign double_error_o = syndrome_o != '0 && !single_error_o;
  assign data_o         = received_data_i ^ flip;
endmodule
