// First in, first out: a word taken in a cycle shows in the next. Any depth; a full one takes nothing, even while a word leaves, so
// that no path runs from pop_i to full_o.
module fifo #(
  parameter int Width = 16,
  parameter int Depth = 2
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             push_i,  // only if not full
  input  logic [Width-1:0] data_i,
  output logic             full_o,
  input  logic             pop_i,   // only if not empty
  output logic [Width-1:0] data_o,
  output logic             empty_o
);
  localparam int PlaceBits = Depth > 1 ? $clog2(Depth) : 1;
  localparam int CountBits = $clog2(Depth + 1);
  localparam logic [PlaceBits-1:0] Last = PlaceBits'(Depth - 1);

  logic [Width-1:0]     words [Depth];
  logic [PlaceBits-1:0] first, free;
  logic [CountBits-1:0] count;

  assign full_o  = count == CountBits'(Depth);
  assign empty_o = count == '0;
  assign data_o  = words[first];

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      first <= '0;
      free  <= '0;
      count <= '0;
    end else begin
      if (push_i) free <= free == Last ? '0 : free + 1'b1;
      if (pop_i) first <= first == Last ? '0 : first + 1'b1;
      if (push_i && !pop_i) count <= count + 1'b1;
      if (pop_i && !push_i) count <= count - 1'b1;
    end
  end

  always_ff @(posedge clk_i) if (push_i) words[free] <= data_i;
endmodule
