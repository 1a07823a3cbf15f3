// A chain of registers: what enters shows Depth enabled cycles later. Depth 0 is a wire.
module delay_line #(
  parameter int Width = 1,
  parameter int Depth = 1
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             enable_i,
  input  logic [Width-1:0] data_i,
  output logic [Width-1:0] data_o
);
  if (Depth == 0) begin : g_wire
    assign data_o = data_i;
    logic unused;
    assign unused = ^{clk_i, rst_ni, enable_i};
  end else begin : g_registers
    for (genvar i = 0; i < Depth; i = i + 1) begin : g_stage
      logic [Width-1:0] in, out;
      if (i == 0) begin : g_first
        assign in = data_i;
      end else begin : g_later
        assign in = g_stage[i-1].out;
      end
      always_ff @(posedge clk_i) begin
        if (!rst_ni) out <= '0;
        else if (enable_i) out <= in;
      end
    end
    assign data_o = g_stage[Depth-1].out;
  end
endmodule
