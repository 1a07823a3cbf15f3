// Router of spike packets in a mesh: five ports, dimension-ordered (first along x, then along y), so free of deadlock.
//
// Ports: 0 north (y − 1), 1 east (x + 1), 2 south (y + 1), 3 west (x − 1), 4 local. A packet is one flit: {x, y} of its destination
// and the payload, x highest. Each input has a FIFO; a flit that enters an empty one shows at its output in the next cycle. Each
// output passes one flit a cycle and takes the inputs in turn. Handshakes: a flit passes in a cycle with valid and ready; an
// output that shows a flit keeps showing it until it passes. No path runs from an input pin to ready_o or valid_o, so routers may be
// joined as they are. With a Depth of 1 an input takes a flit every other cycle, from 2 on every cycle.
module spike_router #(
  parameter int XBits       = 4,
  parameter int YBits       = 4,
  parameter int PayloadBits = 8,
  parameter int Depth       = 2,
  parameter int Width       = XBits + YBits + PayloadBits
) (
  input  logic               clk_i,
  input  logic               rst_ni,
  input  logic [XBits-1:0]   x_i, // where the router is; constant
  input  logic [YBits-1:0]   y_i,
  input  logic [4:0]         valid_i,
  output logic [4:0]         ready_o,
  input  logic [5*Width-1:0] flit_i,
  output logic [4:0]         valid_o,
  input  logic [4:0]         ready_i,
  output logic [5*Width-1:0] flit_o
);
  // The first of the requests, counted from `first` on and around.
  function automatic logic [2:0] pick(input logic [4:0] requests, input logic [2:0] first);
    logic [2:0] candidate;
    pick      = first;
    candidate = first;
    for (int k = 0; k < 5; k = k + 1) begin
      candidate = candidate == 3'd0 ? 3'd4 : candidate - 3'd1; // backwards, so that the first one stays
      if (requests[candidate]) pick = candidate;
    end
  endfunction

  // --- inputs: what each asks for -------------------------------------------------------------------------------------------

  logic [5*Width-1:0] heads;
  logic [24:0]        asks; // input p asks for output o: bit 5·o + p
  logic [24:0]        passes;

  for (genvar p = 0; p < 5; p = p + 1) begin : g_input
    logic             full, empty;
    logic [XBits-1:0] x;
    logic [YBits-1:0] y;

    fifo #(.Width(Width), .Depth(Depth)) u_fifo (
      .clk_i(clk_i), .rst_ni(rst_ni),
      .push_i(valid_i[p] && !full), .data_i(flit_i[p*Width +: Width]), .full_o(full),
      .pop_i(passes[p] || passes[5 + p] || passes[10 + p] || passes[15 + p] || passes[20 + p]),
      .data_o(heads[p*Width +: Width]), .empty_o(empty)
    );
    assign ready_o[p] = !full;

    assign x = heads[p*Width + PayloadBits + YBits +: XBits];
    assign y = heads[p*Width + PayloadBits +: YBits];
    assign asks[p]      = !empty && x == x_i && y < y_i;
    assign asks[5 + p]  = !empty && x > x_i;
    assign asks[10 + p] = !empty && x == x_i && y > y_i;
    assign asks[15 + p] = !empty && x < x_i;
    assign asks[20 + p] = !empty && x == x_i && y == y_i;
  end

  // --- outputs: whose turn it is --------------------------------------------------------------------------------------------

  for (genvar o = 0; o < 5; o = o + 1) begin : g_output
    logic [2:0] turn, choice;

    assign choice     = pick(asks[5*o +: 5], turn);
    assign valid_o[o] = asks[5*o +: 5] != '0;
    assign passes[5*o +: 5]       = valid_o[o] && ready_i[o] ? 5'd1 << choice : '0;
    assign flit_o[o*Width +: Width] = valid_o[o] ? heads[choice*Width +: Width] : '0;

    always_ff @(posedge clk_i) begin
      if (!rst_ni) turn <= '0;
      else if (valid_o[o] && ready_i[o]) turn <= choice == 3'd4 ? 3'd0 : choice + 3'd1;
      else if (valid_o[o]) turn <= choice; // it waits, and stays first
    end
  end
endmodule
