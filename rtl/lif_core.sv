// Time-multiplexed leaky integrate-and-fire neurons with Loihi's integer arithmetic.
//
// All neurons share one datapath; their synaptic current u, membrane voltage v and refractory count lie in a memory, one word a
// neuron. In a cycle with ready_o the core takes a synaptic event (its weight is added to that neuron's input of this step) and a
// tick; an event in the cycle of the tick still counts. A tick starts the update: one neuron a cycle, through three registers (read,
// current, voltage), so the core is busy (not ready_o) for Neurons + 3 cycles. A neuron's new state shows as it is written,
// 4 + n cycles after the tick, with spike_valid_o where it spikes; a spike that is not taken (spike_ready_i) stalls the whole update.
// After a reset the core is busy for Neurons cycles more while it clears its memory.
//
// The configuration must not change while the core is busy, nor weight_shift_i within a step.
module lif_core #(
  parameter int Neurons   = 16,
  parameter int IndexBits = Neurons > 1 ? $clog2(Neurons) : 1
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic [11:0]          decay_u_i,         // u keeps (4095 − decay) / 4096: the offset of 1 is Loihi's
  input  logic [11:0]          decay_v_i,         // v keeps (4096 − decay) / 4096
  input  logic [16:0]          threshold_i,       // · 2^6
  input  logic [12:0]          bias_mantissa_i,   // signed
  input  logic [2:0]           bias_exponent_i,
  input  logic [5:0]           refractory_i,      // steps from a spike to the first that integrates; 0 is as 1
  input  logic [4:0]           v_min_exponent_i,  // v ≥ 1 − 2^exponent; at most 23
  input  logic [4:0]           v_max_exponent_i,  // v ≤ 2^exponent − 1; at most 23
  input  logic [3:0]           weight_shift_i,    // a weight's exponent + 6; at most 13
  output logic                 ready_o,
  input  logic                 synapse_valid_i,
  input  logic [IndexBits-1:0] synapse_neuron_i,  // events of neurons that are not there are dropped
  input  logic [8:0]           synapse_weight_i,  // signed
  input  logic                 tick_i,
  output logic                 state_valid_o,
  output logic [IndexBits-1:0] state_neuron_o,
  output logic [23:0]          state_u_o,
  output logic [23:0]          state_v_o,
  output logic [5:0]           state_refractory_o,
  output logic                 spike_valid_o,
  input  logic                 spike_ready_i
);
  localparam logic [IndexBits-1:0] Last = IndexBits'(Neurons - 1);

  // x · factor / 4096, toward zero: the magnitude is what is multiplied and shifted.
  function automatic logic [23:0] decayed(input logic [23:0] x, input logic [12:0] factor);
    logic [23:0] magnitude;
    magnitude = x[23] ? -x : x;
    magnitude = 24'((36'(magnitude) * 36'(factor)) >> 12);
    decayed   = x[23] ? -magnitude : magnitude;
  endfunction

  logic [53:0] memory [Neurons]; // refractory, v, u
  logic [21:0] inputs [Neurons]; // of the step to come

  // --- control --------------------------------------------------------------------------------------------------------------

  logic                 clearing, reading, read_valid, current_valid, advance;
  logic [IndexBits-1:0] index, read_neuron, current_neuron;

  assign ready_o = !(clearing || reading || read_valid || current_valid || state_valid_o);
  assign advance = !spike_valid_o || spike_ready_i;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      clearing      <= 1'b1;
      reading       <= 1'b0;
      read_valid    <= 1'b0;
      current_valid <= 1'b0;
      index         <= '0;
    end else if (advance) begin
      if (ready_o) reading <= tick_i;
      else if (index == Last) reading <= 1'b0;
      if (index == Last) clearing <= 1'b0;
      if (clearing || reading) index <= index == Last ? '0 : index + 1'b1;
      read_valid    <= reading;
      current_valid <= read_valid;
    end
  end

  // --- synaptic input -------------------------------------------------------------------------------------------------------

  logic        known;
  logic [21:0] weight;

  assign known  = {1'b0, synapse_neuron_i} <= {1'b0, Last};
  assign weight = {{13{synapse_weight_i[8]}}, synapse_weight_i} << weight_shift_i;

  always_ff @(posedge clk_i) begin
    if (clearing || (reading && advance)) inputs[index] <= '0;
    else if (ready_o && synapse_valid_i && known) inputs[synapse_neuron_i] <= inputs[synapse_neuron_i] + weight;
  end

  // --- read -----------------------------------------------------------------------------------------------------------------

  logic [53:0] read_state;
  logic [21:0] read_input;

  always_ff @(posedge clk_i) begin
    if (advance) begin
      read_state  <= memory[index];
      read_input  <= inputs[index];
      read_neuron <= index;
    end
  end

  // --- current --------------------------------------------------------------------------------------------------------------

  logic [23:0] current_u, current_v;
  logic [5:0]  current_refractory;

  always_ff @(posedge clk_i) begin
    if (advance) begin
      current_u          <= decayed(read_state[23:0], 13'd4095 - {1'b0, decay_u_i}) + {{2{read_input[21]}}, read_input};
      current_v          <= read_state[47:24];
      current_refractory <= read_state[53:48];
      current_neuron     <= read_neuron;
    end
  end

  // --- voltage --------------------------------------------------------------------------------------------------------------

  logic [23:0] bias, decayed_v, drive, v_min, v_max, clipped, voltage;
  logic [24:0] sum;
  logic [5:0]  left;
  logic        spike;

  assign bias      = {{11{bias_mantissa_i[12]}}, bias_mantissa_i} << bias_exponent_i;
  assign drive     = current_u + bias;
  assign decayed_v = decayed(current_v, 13'd4096 - {1'b0, decay_v_i});
  assign sum       = {decayed_v[23], decayed_v} + {drive[23], drive};
  assign v_min     = 24'd1 - (24'd1 << v_min_exponent_i);
  assign v_max     = (24'd1 << v_max_exponent_i) - 24'd1;
  assign clipped   = $signed(sum) < $signed({v_min[23], v_min}) ? v_min :
                     $signed(sum) > $signed({v_max[23], v_max}) ? v_max : sum[23:0];
  assign left      = current_refractory == '0 ? '0 : current_refractory - 1'b1;
  assign voltage   = left != '0 ? '0 : clipped;
  assign spike     = $signed(voltage) > $signed({1'b0, threshold_i, 6'd0});

  logic                 result_valid, result_spike;
  logic [IndexBits-1:0] result_neuron;
  logic [53:0]          result;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      result_valid <= 1'b0;
    end else if (advance) begin
      result_valid  <= current_valid;
      result_spike  <= spike;
      result_neuron <= current_neuron;
      result        <= {spike ? refractory_i : left, spike ? 24'd0 : voltage, current_u};
    end
  end

  // --- write ----------------------------------------------------------------------------------------------------------------

  always_ff @(posedge clk_i) begin
    if (clearing) memory[index] <= '0;
    else if (result_valid) memory[result_neuron] <= result;
  end

  assign state_valid_o      = result_valid;
  assign state_neuron_o     = result_valid ? result_neuron : '0;
  assign state_u_o          = result_valid ? result[23:0] : '0;
  assign state_v_o          = result_valid ? result[47:24] : '0;
  assign state_refractory_o = result_valid ? result[53:48] : '0;
  assign spike_valid_o      = result_valid && result_spike;
endmodule
