// Plays one line of stimulus into a unit in every cycle and records the unit's outputs of that cycle.
//
// Inputs change at the falling edge of clk_i and are read from the file `Index`.in, one hexadecimal word a line; outputs are
// written to `Index`.out at the rising edge, before the unit's registers move: in binary, since a hexadecimal digit of which the
// simulator does not know one bit hides the others. The unit's clock runs only meanwhile.
module player #(
  parameter int InputBits  = 1,
  parameter int OutputBits = 1,
  parameter int Index      = 0
) (
  input  logic                  clk_i,
  input  logic [15:0]           active_i,
  output logic                  done_o,
  output logic                  unit_clk_o,
  output logic [InputBits-1:0]  drive_o,
  input  logic [OutputBits-1:0] observe_i
);
  integer source, sink, found;
  logic   playing = 1'b0;
  logic   finished = 1'b0;
  reg [8*32-1:0] name;

  // A clock of its own: Verilator evaluates a unit when the clock of its inputs moves, so that those not playing cost nothing.
  logic selected, own;

  assign selected   = active_i == 16'(Index) && !finished;
  assign own        = clk_i & selected;
  assign unit_clk_o = own & playing;
  assign done_o     = finished;

  always @(negedge own) begin
    if (!finished) begin
      if (!playing) begin
        $sformat(name, "%0d.in", Index);
        source = $fopen(name, "r");
        $sformat(name, "%0d.out", Index);
        sink = $fopen(name, "w");
      end
      found   = $fscanf(source, "%h", drive_o);
      playing = (found == 1);
      if (!playing) begin
        finished = 1'b1;
        $fclose(source);
        $fclose(sink);
      end
    end
  end

  always @(posedge own) if (playing) $fdisplay(sink, "%b", observe_i);
endmodule
