// Mesh of spike routers with closed edges: Rows × Columns, row 0 in the north, router r·Columns + c at x = c, y = r.
//
// Only the local ports lead outside. A packet alone in the mesh leaves 1 + hops cycles after it entered. Destinations must lie in the
// mesh: a packet to anywhere else waits at the edge for ever.
module spike_mesh #(
  parameter int Rows        = 2,
  parameter int Columns     = 2,
  parameter int XBits       = 4,
  parameter int YBits       = 4,
  parameter int PayloadBits = 8,
  parameter int Depth       = 2,
  parameter int Width       = XBits + YBits + PayloadBits
) (
  input  logic                          clk_i,
  input  logic                          rst_ni,
  input  logic [Rows*Columns-1:0]       valid_i,
  output logic [Rows*Columns-1:0]       ready_o,
  input  logic [Rows*Columns*Width-1:0] flit_i,
  output logic [Rows*Columns-1:0]       valid_o,
  input  logic [Rows*Columns-1:0]       ready_i,
  output logic [Rows*Columns*Width-1:0] flit_o
);
  // Ports of all routers: router n has port p at bit (or flit) 5·n + p.
  localparam int Routers = Rows * Columns;

  logic [5*Routers-1:0]       in_valid, in_ready, out_valid, out_ready;
  logic [5*Routers*Width-1:0] in_flit, out_flit;

  for (genvar r = 0; r < Rows; r = r + 1) begin : g_row
    for (genvar c = 0; c < Columns; c = c + 1) begin : g_column
      localparam int N = r * Columns + c;

      spike_router #(.XBits(XBits), .YBits(YBits), .PayloadBits(PayloadBits), .Depth(Depth)) u_router (
        .clk_i(clk_i), .rst_ni(rst_ni), .x_i(XBits'(c)), .y_i(YBits'(r)),
        .valid_i(in_valid[5*N +: 5]), .ready_o(in_ready[5*N +: 5]), .flit_i(in_flit[5*N*Width +: 5*Width]),
        .valid_o(out_valid[5*N +: 5]), .ready_i(out_ready[5*N +: 5]), .flit_o(out_flit[5*N*Width +: 5*Width])
      );

      for (genvar p = 0; p < 4; p = p + 1) begin : g_link
        localparam bit Joined = p == 0 ? r > 0 : p == 1 ? c < Columns - 1 : p == 2 ? r < Rows - 1 : c > 0;
        if (Joined) begin : g_joined
          // The neighbour's port that faces this one.
          localparam int Other = 5 * (p == 0 ? N - Columns : p == 1 ? N + 1 : p == 2 ? N + Columns : N - 1) + (p + 2) % 4;
          assign in_valid[5*N+p]                 = out_valid[Other];
          assign in_flit[(5*N+p)*Width +: Width] = out_flit[Other*Width +: Width];
          assign out_ready[5*N+p]                = in_ready[Other];
        end else begin : g_edge
          logic unused;
          assign in_valid[5*N+p]                 = 1'b0;
          assign in_flit[(5*N+p)*Width +: Width] = '0;
          assign out_ready[5*N+p]                = 1'b0;
          assign unused = ^{out_valid[5*N+p], in_ready[5*N+p], out_flit[(5*N+p)*Width +: Width]};
        end
      end

      assign in_valid[5*N+4]                 = valid_i[N];
      assign in_flit[(5*N+4)*Width +: Width] = flit_i[N*Width +: Width];
      assign ready_o[N]                      = in_ready[5*N+4];
      assign valid_o[N]                      = out_valid[5*N+4];
      assign flit_o[N*Width +: Width]        = out_flit[(5*N+4)*Width +: Width];
      assign out_ready[5*N+4]                = ready_i[N];
    end
  end
endmodule
