/* What a serial line serves: the functions of model.h under the names of ek_identity.h. */
#include "ek_identity.h"
#include "ek_serial.h"
#include "model.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

#define HEAD                                                                                           \
    "{\"protocol\": 1, \"payload\": " TEXT(EK_SERIAL_PAYLOAD) ", \"model\": \"" EK_MODEL_REF           \
    "\", \"variant\": \"" EK_VARIANT "\", \"digest\": \"" EK_VARIANT_DIGEST "\", "

static const char head[] = HEAD;

const ek_serial_model_t *ek_serial_model(void)
{
    static ek_serial_model_t served;
    served.head = head;
    served.head_bytes = sizeof head - 1;
    served.tail = model_ports;
    served.tail_bytes = model_ports_bytes;
    served.digest = EK_VARIANT_DIGEST;
    served.inputs = MODEL_INPUTS;
    served.outputs = MODEL_OUTPUTS;
    served.input = model_input;
    served.output = model_output;
    served.input_bytes = model_input_bytes;
    served.output_bytes = model_output_bytes;
    served.invoke = model_invoke;
    return &served;
}
