"""How services talk: the contract, its clients and servers, and the agents' half of call-then-spawn."""
import warnings

# oslo.messaging imports oslo.service, and that eventlet, whichever model of concurrency is in use. That the field is leaving eventlet
# is known and answered in migrator.concurrency; users of the command line need not read it each time.
warnings.filterwarnings('ignore', message=r'\s*Eventlet is deprecated')
